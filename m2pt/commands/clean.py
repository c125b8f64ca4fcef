"""`m2pt clean`: list the trainings that no table, figure or claim of the given configs needs; remove them."""

import argparse
import sys
from pathlib import Path

from m2pt.command_line import DEFAULT_CONFIG, add_set_argument, parse_overrides
from m2pt.plan.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--config",
        type=Path,
        nargs="+",
        default=[DEFAULT_CONFIG],
        help=f"configs to keep the results of; default: {DEFAULT_CONFIG}",
    )
    add_set_argument(
        parser, "replace a top-level key of each config, as given to the runs to keep, e.g. 'seeds=[0,1,2]'"
    )
    parser.add_argument("--yes", action="store_true", help="remove without asking")


def run(arguments: argparse.Namespace) -> int:
    """List, confirm, remove. Return 0, or 1 if files that m2pt did not write were kept.

    Raises:
        InputError: a config is wrong, or a workflow or a tracker is running.
    """
    from m2pt.ops.cleanup import find_unused, needed_folders, remove_unused
    from m2pt.ops.storage import format_bytes
    from m2pt.tracking.liveness import Liveness

    overrides = parse_overrides(arguments.set)
    plans = [Plan.load(path, overrides) for path in arguments.config]
    sources = ", ".join(plan.source for plan in plans)
    folders = {plan.results.resolve(): plan.results for plan in plans}.values()
    needed, liveness = needed_folders(plans), Liveness()
    unused = {results: list(find_unused(results, needed, liveness)) for results in folders}
    if not any(unused.values()):
        print(f"Everything under {', '.join(map(str, unused))} is needed by {sources}.")
        return 0
    print(f"Not needed by any table, figure or claim of {sources}:")
    for training in (each for group in unused.values() for each in group):
        kept = f"  kept: {training.in_use}" if training.in_use else ""
        print(f"  {format_bytes(training.size):>12}  {training.directory}{kept}")
    free = {results: [each for each in group if each.in_use is None] for results, group in unused.items()}
    number = sum(map(len, free.values()))
    size = sum(each.size for group in free.values() for each in group)
    print(f"  {format_bytes(size):>12}  in {_count(number)} that can be removed, with logs and benchmarks")
    if number == 0 or not (arguments.yes or _confirmed(number)):
        return 0
    kept_files: list[Path] = []
    for results, group in free.items():
        if group:
            kept_files += remove_unused(results, group, liveness)
    for path in kept_files:
        print(f"{path}: kept, not written by m2pt", file=sys.stderr)
    print("Runs in MLflow and all other files are kept.")
    return 1 if kept_files else 0


def _confirmed(number: int) -> bool:
    if not sys.stdin.isatty():
        print("Nothing was removed: there is no terminal to confirm on; pass --yes to remove them.")
        return False
    if input(f"Remove {_count(number)}? [y/N] ").strip().lower() in ("y", "yes"):
        return True
    print("Nothing was removed.")
    return False


def _count(number: int) -> str:
    return f"{number} folder{'' if number == 1 else 's'}"
