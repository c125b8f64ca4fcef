"""Find and remove the runs and encoders in a results folder that no config needs.

Only files written by the project are ever removed: folders `runs/NAME/seedN` and `encoders/NAME/seedN` with
the files of a training, their logs, benchmarks and tracking cursors. A file with an unknown name is kept, and
so is its folder; links are never followed.
"""

import os
import platform
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from m2pt import catalog
from m2pt.atomic import PART
from m2pt.errors import InputError
from m2pt.locks import holder
from m2pt.plan.jobs import jobs
from m2pt.plan.plan import Plan
from m2pt.run_files import (
    ATTACHED,
    BENCHMARKS,
    CHECKSUMS,
    DAMAGED,
    ENCODER,
    ENCODER_EPOCH,
    ENCODERS,
    EVALUATION,
    FAILED,
    FINAL,
    FINISHED,
    INTERRUPTED,
    KEPT,
    KEPT_STATE,
    LOCK,
    LOG,
    LOGS,
    MERGED,
    METRICS,
    MODEL,
    RESUME,
    RUN,
    RUNS,
    SEED_FOLDER,
    SKIPPED,
    SUPERSEDED,
    TRACKING,
)
from m2pt.tracking.follow import tracker_lock
from m2pt.tracking.liveness import Liveness
from m2pt.tracking.local_run import LocalRun

QUIET_MINUTES = 15
"""A folder with a younger file is never removed: merging and evaluating leave no marker while they run."""

QUIET_HOURS = 24
"""The same for an unfinished training on another machine, since its steps may take long."""

_FILES = (
    *(RUN, METRICS, LOG, SKIPPED, LOCK, RESUME, FINAL, FINISHED, INTERRUPTED, FAILED, KEPT_STATE),
    *(ENCODER, ATTACHED, MERGED, MODEL, EVALUATION, CHECKSUMS),
)
WRITTEN = re.compile("|".join([*map(re.escape, _FILES), ENCODER_EPOCH.pattern, PART.pattern]))
"""Names of the files that commands write into a training's folder and its subfolders."""

SUBFOLDERS = (SUPERSEDED, DAMAGED, KEPT)
"""Folders in which a training keeps the state of another spec, damaged files, and finished trainings."""

_RUN_RULES = tuple(catalog.commands())
"""Rules with logs and benchmarks of a run."""


@dataclass(frozen=True)
class UnusedTraining:
    """A training's folder that no config needs, with its logs, benchmarks and tracking cursors.

    `size` is the total in bytes. `in_use` is the reason why the folder must stay, None if it can be removed.
    """

    directory: Path
    related_files: tuple[Path, ...]
    size: int
    in_use: str | None


def needed_folders(plans: Iterable[Plan]) -> set[Path]:
    """Return the resolved folders of all trainings that the plans' tables, figures and claims need.

    Figures and claims refer to cells of tables, so the tables name all of them.
    """
    needed = (job for plan in plans for job in jobs(plan))
    found = {job.makes.parent for job in needed if job.encoder is not None or job.training is not None}
    return {path.resolve() for path in found}


def find_unused(results: Path, needed: set[Path], liveness: Liveness) -> Iterator[UnusedTraining]:
    """Yield the trainings below `results` with folders that are not in `needed`, in sorted order."""
    for place in (RUNS, ENCODERS):
        for directory in _training_folders(results / place):
            if directory.resolve() not in needed:
                possible = _related_files(results, directory)
                related = tuple(path for path in possible if _exists_without_links(results, path))
                size = sum(_size(path) for path in (directory, *related))
                yield UnusedTraining(directory, related, size, why_in_use(results, directory, liveness))


def remove_unused(results: Path, trainings: Iterable[UnusedTraining], liveness: Liveness) -> list[Path]:
    """Remove the trainings of one results folder that are not in use; return the files that were kept.

    Raises:
        InputError: a workflow may be running in the current folder, or a tracker mirrors `results`.
    """
    if locks := workflow_locks(Path.cwd()):
        raise InputError(
            f"{locks[0]}: a workflow runs in this folder, so nothing is removed; wait for it or, if it was "
            "killed, run: snakemake --unlock"
        )
    if process := cluster_workflow(Path.cwd()):
        raise InputError(f"{process} runs a workflow in this folder, so nothing is removed; wait for it.")
    kept = []
    with tracker_lock(results) if (results / TRACKING).is_dir() else nullcontext():
        for training in trainings:
            # The user may have taken long to confirm.
            if reason := why_in_use(results, training.directory, liveness):
                print(f"{training.directory}: kept, {reason}")
            else:
                kept += _remove(training)
    return kept


def why_in_use(results: Path, directory: Path, liveness: Liveness) -> str | None:
    """Return why a training's folder may be in use, None if it is not.

    A folder counts as in use for `QUIET_MINUTES` after a write and while its training runs. An unfinished
    training on another machine counts as running for `QUIET_HOURS`, unless Slurm says that its job is gone.
    """
    try:
        youngest = max(path.lstat().st_mtime for path in (directory, *_contents(directory)))
    except FileNotFoundError:
        return "its files are changing"
    age = time.time() - youngest
    if age < QUIET_MINUTES * 60:
        return f"written to {age / 60:.0f} minutes ago"
    if process := holder(directory / LOCK):
        return f"{process} is training"
    if not (directory / RUN).is_file():
        return None
    run = LocalRun(results, directory)
    try:
        if run.status(run.signature(), liveness).name != "RUNNING":
            return None
        provenance = run.description().provenance
    except InputError as error:
        return f"it may be running, since it is damaged ({error})"
    if provenance.host == platform.node() and provenance.pid is not None:
        return f"process {provenance.pid} is training"
    if age < QUIET_HOURS * 3600:
        host = provenance.host or "a machine"
        return f"unfinished, and written to {age / 3600:.0f} hours ago on {host}"
    return None


def workflow_locks(folder: Path) -> list[Path]:
    """Return the locks of a workflow that is running, or was killed, in this folder."""
    return sorted((folder / ".snakemake" / "locks").glob("*.lock"))


def cluster_workflow(folder: Path) -> str | None:
    """Return the Snakemake process that has jobs of this folder on a cluster, from its executor's lock."""
    return holder(folder / ".snakemake" / "submitit" / "lock")


def _remove(training: UnusedTraining) -> list[Path]:
    """Remove a training; return the files in its folder that m2pt did not write, which are kept.

    Related files go first, so that the training is listed again after an interruption.
    """
    for path in training.related_files:
        path.unlink(missing_ok=True)
    kept = _empty(training.directory)
    if not kept:
        training.directory.rmdir()
        if not any(training.directory.parent.iterdir()):
            training.directory.parent.rmdir()
    return kept


def _training_folders(place: Path) -> Iterator[Path]:
    """Yield `place`/NAME/seedN, without links: they may point anywhere."""
    for named in _subfolders(place):
        yield from (path for path in _subfolders(named) if SEED_FOLDER.fullmatch(path.name))


def _subfolders(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def _related_files(results: Path, directory: Path) -> Iterator[Path]:
    """Yield where logs, benchmarks and tracking cursors of a training would be, whether or not they exist."""
    place, name, seed = directory.parts[-3:]
    logs, benchmarks, tracking = (results / part for part in (LOGS, BENCHMARKS, TRACKING))
    if place == ENCODERS:
        yield logs / place / f"{name}-{seed}.log"
        yield benchmarks / place / f"{name}-{seed}.tsv"
    else:
        yield from (logs / place / f"{name}-{seed}.{rule}.log" for rule in _RUN_RULES)
        yield from (benchmarks / rule / f"{name}-{seed}.tsv" for rule in _RUN_RULES)
    yield from (store / place / name / f"{seed}.json" for store in _subfolders(tracking))


def _exists_without_links(results: Path, path: Path) -> bool:
    """Return whether `path` is a file that is reached from `results` without a link."""
    steps = (path, *(parent for parent in path.parents if results in parent.parents))
    return path.is_file() and not any(step.is_symlink() for step in steps)


def _contents(folder: Path) -> Iterator[Path]:
    """Yield all files and folders below `folder`; links are not followed."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent) / name for name in (*folders, *files))


def _size(path: Path) -> int:
    """Return the bytes of everything in `path`, counting hard links once."""
    sizes = {}
    for each in (path, *_contents(path)):
        with suppress(FileNotFoundError):  # a training may be replacing it
            status = each.lstat()
            sizes[status.st_ino] = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return sum(sizes.values())


def _empty(directory: Path) -> list[Path]:
    """Delete the files that m2pt has written; return the others."""
    kept = []
    for path in sorted(directory.iterdir()):
        if path.name in SUBFOLDERS and path.is_dir() and not path.is_symlink():
            within = _empty(path)
            kept += within
            if not within:
                path.rmdir()
        elif WRITTEN.fullmatch(path.name) and (path.is_file() or path.is_symlink()):
            path.unlink()
        else:
            kept.append(path)
    return kept
