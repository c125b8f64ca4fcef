"""`m2pt export encoders|models|tables`: gather finals under `checkpoints` for DVC. Needs no torch."""

import argparse
import filecmp
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from m2pt.atomic import PART, is_abandoned, replacing, write_json
from m2pt.commands.planned import add_plan_arguments, load_plan
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes
from m2pt.schema.pulled import CHECKSUMS

if TYPE_CHECKING:
    from m2pt.schema.plan import Plan, Spec

_OURS = re.compile(
    r"encoder(-epoch\d+)?\.safetensors|merged\.safetensors|(run|evaluation)\.json|metrics\.jsonl|SHA256SUMS"
    r"|\w+\.(csv|md|tex|pdf|svg|png)"
)
"""Names that an export writes; --prune removes nothing else."""


class Final(NamedTuple):
    """A file that is final, and where it goes; `made` is None where it has come by DVC and stays."""

    made: Path | None
    exported: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "what",
        choices=("encoders", "models", "tables"),
        help="pretrained encoders; merged models and their evaluations; tables, figures and metrics.json",
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove what earlier exports left and this config does not need"
    )
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Put the finals under `checkpoints` that are not there yet; weights as hard links where possible.

    Each file appears whole or not at all, after what it stores was compared with the config.

    Raises:
        InputError: a result is missing, damaged or stale; all such are named, and nothing is exported.
    """
    plan = load_plan(arguments)
    folder = plan.checkpoints / arguments.what
    gather = {"encoders": _encoders, "models": _models, "tables": _tables}[arguments.what]
    faults: list[str] = []
    finals = list(gather(plan, faults))
    if faults:
        raise InputError("\n".join(faults))
    written = sum(_place(final.made, final.exported) for final in finals if final.made is not None)
    if arguments.what == "tables":
        write_json(plan.checkpoints / "metrics.json", _metrics(plan))
    else:
        _write_checksums(finals)
    print(f"{folder}: {written} files written, {len(finals) - written} were there")
    wanted = {path for final in finals for path in (final.exported, final.exported.with_name(CHECKSUMS))}
    for path in _leftovers(folder, wanted, prune=arguments.prune):
        path.unlink()
        print(f"{path}: removed")
        for parent in (path.parent, path.parent.parent):
            with suppress(OSError):  # others are still in it
                parent.rmdir()


def _encoders(plan: "Plan", faults: list[str]) -> Iterator[Final]:
    """Weights of every pretraining, its kept epochs, its description and its curve."""
    from m2pt.commands.pulled import check_checkpoint

    for name, seed in plan.pretrainings:
        made, exported = plan.encoder_directory(name, seed), plan.encoder_checkpoint(name, seed)
        weights, beside = plan.encoder_files(name), ("run.json", "metrics.jsonl")
        if not plan.config.encoders[name].is_trained_here:
            try:
                check_checkpoint(plan, name, seed)
            except InputError as error:
                faults.append(str(error))
            yield from (Final(None, exported / file) for file in (*weights, *beside))
            continue
        again = plan.command(made / weights[0], again=True)
        for file in (*weights, *beside):
            spec = plan.encoders[name] if file in weights else None
            faults += _faults(made / file, spec, seed, again)
            yield Final(made / file, exported / file)


def _models(plan: "Plan", faults: list[str]) -> Iterator[Final]:
    """The merged model and the evaluation of every run."""
    from m2pt.reporting.cells import read_result

    for name, seed in plan.trainings:
        made, exported = plan.run_directory(name, seed), plan.run_checkpoint(name, seed)
        try:
            read_result(plan, plan.run(name), seed)
        except InputError as error:
            faults.append(str(error))
        yield Final(made / "evaluation.json", exported / "evaluation.json")
        merged = made / "merged.safetensors"
        faults += _faults(
            merged, plan.seeded_spec(plan.run(name), seed), seed, plan.command(merged, again=True)
        )
        yield Final(merged, exported / merged.name)


def _tables(plan: "Plan", faults: list[str]) -> Iterator[Final]:
    """Tables, figures and the summary, in every format."""
    from m2pt.reporting.cells import read_cells
    from m2pt.reporting.tables import to_csv

    for name in plan.reports:
        faults += _faults(plan.results / name, None, 0, plan.command(plan.results / name))
        yield Final(plan.results / name, plan.checkpoints / "tables" / name)
    for name, table in plan.tables.items():
        path = plan.results / f"{name}.csv"
        if path.exists() and read_bytes(path) != to_csv(table, read_cells(plan, name)).encode():
            faults.append(
                f"{path}: not what the results say; make it again with: {plan.command(path, again=True)}"
            )


def _faults(path: Path, spec: "Spec | None", seed: int, command: str) -> Iterator[str]:
    """Say that a file is missing, or that the spec stored in it is not the one asked for."""
    from m2pt.commands.pulled import different_from

    if not path.exists():
        yield f"{path}: missing; make it with: {command}"
    elif spec is not None and (differences := different_from(path, spec, seed)):
        yield f"{path}: stale, made with another spec ({differences}); make it again with: {command}"


def _place(made: Path, exported: Path) -> bool:
    """Make `exported` the same file as `made`, unless it is; return whether there was anything to do.

    Weights are linked: they are only ever replaced as a whole, so nothing writes through the link. Other
    files are copied, since a training that starts again cuts its metrics.jsonl short in place.
    """
    if exported.exists() and (exported.samefile(made) or filecmp.cmp(made, exported, shallow=False)):
        return False
    with replacing(exported) as temporary:
        if made.suffix == ".safetensors":
            try:
                os.link(made, temporary)
                return True
            except OSError:  # another file system, or one without hard links
                pass
        shutil.copyfile(made, temporary)
    return True


def _write_checksums(finals: list[Final]) -> None:
    """Write the checksums of what was exported beside it; what came by DVC has brought its own."""
    from m2pt.commands.checksums import write_checksums

    made = [final.exported for final in finals if final.made is not None]
    for folder, paths in groupby(made, key=lambda path: path.parent):
        write_checksums(folder, [path.name for path in paths])


def _leftovers(folder: Path, wanted: set[Path], *, prune: bool) -> Iterator[Path]:
    """Parts that a killed export left and, to `prune`, exported files that are no longer wanted."""
    for path in sorted(folder.rglob("*")):
        old = prune and path not in wanted and _OURS.fullmatch(path.name)
        if not path.is_dir() and (old or (PART.fullmatch(path.name) and is_abandoned(path))):
            yield path


def _metrics(plan: "Plan") -> dict[str, Any]:
    """Every measured mean in percent: {table: {setting/method: {column: value}}}."""
    from m2pt.reporting.cells import read_cells

    metrics: dict[str, Any] = {}
    for table in plan.tables:
        for cell in read_cells(plan, table):
            if cell.mean is not None:
                row = metrics.setdefault(table, {}).setdefault(f"{cell.row.setting}/{cell.row.method}", {})
                row[cell.column.name] = round(cell.mean, 4)
    return metrics
