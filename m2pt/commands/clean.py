"""`m2pt clean`: list what no table, figure or claim of the given configs asks for, and remove it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from m2pt.commands.planned import add_set_argument, parse_overrides
from m2pt.errors import InputError
from m2pt.schema.plan import Plan

if TYPE_CHECKING:
    from m2pt.planning.leftovers import Leftover
    from m2pt.reporting.liveness import Liveness


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--config",
        type=Path,
        nargs="+",
        default=[Path("config/config.yaml")],
        help="every config whose results are to stay; default: config/config.yaml",
    )
    add_set_argument(parser, "replace a top-level key of each config, as in the runs that are to stay")
    parser.add_argument("--yes", action="store_true", help="remove without asking")


def run(arguments: argparse.Namespace) -> int:
    """List, ask, remove. Return 0, or 1 if a folder could not be emptied because of files that are not ours.

    Raises:
        InputError: a config is wrong, or a workflow or a tracker is at work.
    """
    from m2pt.planning import units
    from m2pt.planning.leftovers import leftovers, wanted
    from m2pt.reporting.liveness import Liveness

    overrides = parse_overrides(arguments.set)
    plans = [Plan.load(path, overrides) for path in arguments.config]
    kept = wanted(plans)
    folders = {plan.results.resolve(): plan.results for plan in plans}
    liveness = Liveness()
    found = {results: list(leftovers(results, kept, liveness)) for results in folders.values()}
    sources = ", ".join(plan.source for plan in plans)
    if not any(found.values()):
        print(f"Everything under {', '.join(map(str, found))} is asked for by {sources}.")
        return 0
    print(f"Not asked for by any table, figure or claim of {sources}:")
    for leftover in (each for group in found.values() for each in group):
        stays = f"  stays: {leftover.held}" if leftover.held else ""
        print(f"  {units.size(leftover.size):>12}  {leftover.directory}{stays}")
    free = {results: [each for each in group if each.held is None] for results, group in found.items()}
    number = sum(map(len, free.values()))
    size = sum(each.size for group in free.values() for each in group)
    print(f"  {units.size(size):>12}  in {_count(number)} that can be removed, with logs and benchmarks")
    if number == 0 or not _confirmed(arguments.yes, number):
        return 0
    strange = [
        path for results, group in free.items() if group for path in _removed(results, group, liveness)
    ]
    for path in strange:
        print(f"left where it is, since m2pt did not write it: {path}", file=sys.stderr)
    print("Runs in MLflow stay; so does everything else.")
    return 1 if strange else 0


def _confirmed(yes: bool, number: int) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        print("Nothing was removed: there is no terminal to ask on. To remove these give --yes.")
        return False
    if input(f"Remove {_count(number)}? [y/N] ").strip().lower() in ("y", "yes"):
        return True
    print("Nothing was removed.")
    return False


def _removed(results: Path, group: "list[Leftover]", liveness: "Liveness") -> list[Path]:
    """Remove leftovers of one results folder; return what in them is not ours.

    Raises:
        InputError: a workflow may be at work here, or a tracker mirrors the folder.
    """
    from contextlib import nullcontext

    from m2pt.planning.leftovers import controller, held, locks, remove
    from m2pt.reporting.background_tracker import only_tracker

    if locked := locks(Path.cwd()):
        raise InputError(
            f"{locked[0]}: a workflow runs in this folder, so nothing is removed; wait for it, or if it was "
            "killed give: snakemake --unlock"
        )
    if process := controller(Path.cwd()):
        raise InputError(f"{process} runs a workflow in this folder, so nothing is removed; wait for it")
    with only_tracker(results) if (results / "tracking").is_dir() else nullcontext():
        strange = []
        for leftover in group:
            # the question may have stood there for long
            if reason := held(results, leftover.directory, liveness):
                print(f"{leftover.directory} stays: {reason}")
            else:
                strange += remove(leftover)
        return strange


def _count(number: int) -> str:
    return f"{number} folder{'' if number == 1 else 's'}"
