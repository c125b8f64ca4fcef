"""Copy finals to the checkpoints folder, which DVC tracks. Needs no torch."""

import filecmp
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby, product
from pathlib import Path
from typing import Any, NamedTuple

from m2pt.atomic import PART, is_abandoned, replacing, write_json
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes
from m2pt.plan.dvc import check_checkpoint, describe_differences, write_checksums
from m2pt.plan.jobs import pretrainings
from m2pt.plan.plan import Plan
from m2pt.plan.specs import Stored
from m2pt.reporting.cells import read_cells, read_result
from m2pt.reporting.tables import to_csv
from m2pt.run_files import (
    CHECKSUMS,
    ENCODER,
    ENCODER_EPOCH,
    EVALUATION,
    FIGURE_FORMATS,
    MERGED,
    METRICS,
    MODEL,
    RUN,
    TABLE_FORMATS,
)

_FILES = (ENCODER, MERGED, MODEL, RUN, EVALUATION, METRICS, CHECKSUMS)
_REPORT = rf"\w+\.({'|'.join((*TABLE_FORMATS, *FIGURE_FORMATS))})"
EXPORTED = re.compile("|".join([*map(re.escape, _FILES), ENCODER_EPOCH.pattern, _REPORT]))
"""Names of the files that an export writes; pruning removes no others."""


class Final(NamedTuple):
    """A final file and where it is exported to; `source` is None if DVC has fetched it there already."""

    source: Path | None
    target: Path


def export(plan: Plan, what: str) -> tuple[list[Final], int]:
    """Export "encoders", "models" or "tables"; return their files, and how many of them were written.

    Each file is compared with the config first, and appears complete or not at all. Weights become hard links
    where possible.

    Raises:
        InputError: results are missing, damaged or stale; all of them are named, and nothing is exported.
    """
    gather = {"encoders": _encoders, "models": _models, "tables": _tables}[what]
    faults: list[str] = []
    finals = list(gather(plan, faults))
    if faults:
        raise InputError("\n".join(faults))
    written = sum(_place(final.source, final.target) for final in finals if final.source is not None)
    if what == "tables":
        write_json(plan.checkpoints / "metrics.json", _metrics(plan))
    else:
        _write_checksums(finals)
    return finals, written


def clean_exported(folder: Path, finals: list[Final], *, prune: bool) -> Iterator[Path]:
    """Remove the temporary files of killed exports and, to `prune`, files not among `finals`; yield each."""
    exported = {path for final in finals for path in (final.target, final.target.with_name(CHECKSUMS))}
    for path in sorted(folder.rglob("*")):
        outdated = prune and path not in exported and EXPORTED.fullmatch(path.name)
        if path.is_dir() or not (outdated or (PART.fullmatch(path.name) and is_abandoned(path))):
            continue
        path.unlink()
        yield path
        for parent in (path.parent, path.parent.parent):
            with suppress(OSError):  # not empty
                parent.rmdir()


def _encoders(plan: Plan, faults: list[str]) -> Iterator[Final]:
    """Yield the weights of every pretraining, its kept epochs, its run.json and its metrics."""
    for name, seed in pretrainings(plan):
        source, target = plan.encoder_directory(name, seed), plan.encoder_checkpoint(name, seed)
        weights, others = plan.encoder_files(name), (RUN, METRICS)
        if not plan.config.encoders[name].is_trained_here:
            try:
                check_checkpoint(plan, name, seed)
            except InputError as error:
                faults.append(str(error))
            yield from (Final(None, target / file) for file in (*weights, *others))
            continue
        command = plan.command(source / weights[0], again=True)
        for file in (*weights, *others):
            spec = plan.encoders[name].stored if file in weights else None
            faults += _faults(source / file, spec, seed, command)
            yield Final(source / file, target / file)


def _models(plan: Plan, faults: list[str]) -> Iterator[Final]:
    """Yield the plain model and the evaluation of every run."""
    for name, seed in product(plan.runs, plan.config.seeds):
        source, target = plan.run_directory(name, seed), plan.run_checkpoint(name, seed)
        try:
            read_result(plan, plan.run(name), seed)
        except InputError as error:
            faults.append(str(error))
        yield Final(source / EVALUATION, target / EVALUATION)
        weights, spec = plan.run(name).kind.weights, plan.stored_spec(plan.run(name), seed)
        faults += _faults(source / weights, spec, seed, plan.command(source / weights, again=True))
        yield Final(source / weights, target / weights)


def _tables(plan: Plan, faults: list[str]) -> Iterator[Final]:
    """Yield tables, figures and the summary, in every format."""
    for name in plan.reports:
        faults += _faults(plan.results / name, None, 0, plan.command(plan.results / name))
        yield Final(plan.results / name, plan.checkpoints / "tables" / name)
    for name, table in plan.tables.items():
        path = plan.results / f"{name}.csv"
        if path.exists() and read_bytes(path) != to_csv(table, read_cells(plan, name)).encode():
            command = plan.command(path, again=True)
            faults.append(f"{path}: differs from the results it is made of; make it again with: {command}")


def _faults(path: Path, spec: Stored | None, seed: int, command: str) -> Iterator[str]:
    """Report a file that is missing, or stores another spec than this one."""
    if not path.exists():
        yield f"{path}: missing; make it with: {command}"
    elif spec is not None and (differences := describe_differences(path, spec, seed)):
        yield f"{path}: stale, made with another spec ({differences}); make it again with: {command}"


def _place(source: Path, target: Path) -> bool:
    """Make `target` the same file as `source` if it is not yet; return whether anything was written.

    Weights are linked: they are only ever replaced as a whole, so nothing is written through the link. Other
    files are copied, since a training that is resumed truncates its metrics.jsonl in place.
    """
    if target.exists() and (target.samefile(source) or filecmp.cmp(source, target, shallow=False)):
        return False
    with replacing(target) as temporary:
        if source.suffix == ".safetensors":
            try:
                os.link(source, temporary)
                return True
            except OSError:  # another file system, or one without hard links
                pass
        shutil.copyfile(source, temporary)
    return True


def _write_checksums(finals: list[Final]) -> None:
    """Write checksums next to the exported files; files that DVC has fetched have theirs already."""
    exported = [final.target for final in finals if final.source is not None]
    for folder, paths in groupby(exported, key=lambda path: path.parent):
        write_checksums(folder, [path.name for path in paths])


def _metrics(plan: Plan) -> dict[str, Any]:
    """Return every measured mean in percent: {table: {setting/method: {column: value}}}."""
    metrics: dict[str, Any] = {}
    for table in plan.tables:
        for cell in read_cells(plan, table):
            if cell.mean is not None:
                row = metrics.setdefault(table, {}).setdefault(f"{cell.row.setting}/{cell.row.method}", {})
                row[cell.column.name] = round(cell.mean, 4)
    return metrics
