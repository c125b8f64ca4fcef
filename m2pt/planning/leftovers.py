"""Runs and encoders in a results folder that nothing asks for, and removing them.

Only what the project itself writes is ever removed: folders `runs/NAME/seedN` and `encoders/NAME/seedN` with
the files of a training, their logs, benchmarks and tracking cursors. A file that is not known to be ours
stays, and so does its folder; a link is never followed.
"""

import os
import platform
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from m2pt.atomic import PART
from m2pt.errors import InputError
from m2pt.locks import TRAINING, holder
from m2pt.reporting.liveness import Liveness
from m2pt.reporting.run_folder import RunFolder
from m2pt.results import RUN
from m2pt.schema.plan import Plan

PLACES = ("runs", "encoders")
"""Folders of a results folder that hold trainings."""

QUIET_MINUTES = 15
"""A folder in which anything was written since is never removed: merging and evaluating leave no marker."""

QUIET_HOURS = 24
"""The same for a training without an end that another machine runs: a step may take it long."""

OURS = re.compile(
    r"(run|finished|interrupted|failed|evaluation)\.json|metrics\.jsonl|train\.log|(resume|final)\.pt|SHA256SUMS"
    rf"|(attached|merged|encoder|encoder-epoch\d+)\.safetensors|state\.json|\.lock|{PART.pattern}"
)
"""Names of the files that commands write into a training's folder; its subfolders have the same ones."""

SUBFOLDERS = ("superseded", "damaged", "finished")
"""Where a training keeps its state of another spec, what was damaged, and what it has finished with."""

_FINETUNED = ("finetune", "merge", "evaluate", "transfer")


@dataclass(frozen=True)
class Leftover:
    """A training's folder that nothing asks for, what belongs to it elsewhere, and if it must stay, why."""

    directory: Path
    companions: tuple[Path, ...]
    size: int
    held: str | None


def wanted(plans: Iterable[Plan]) -> set[Path]:
    """The folders of all trainings that the plans' tables, figures and claims need, resolved.

    Figures and claims are about cells of tables, so that the tables ask for everything.
    """
    found = set()
    for plan in plans:
        seeds = plan.config.seeds
        found |= {plan.run_directory(name, seed) for name in plan.runs for seed in seeds}
        found |= {
            plan.encoder_directory(name, plan.encoder_seed(name, seed))
            for name in plan.used_encoders
            for seed in seeds
        }
    return {path.resolve() for path in found}


def leftovers(results: Path, kept: set[Path], liveness: Liveness) -> Iterator[Leftover]:
    """Yield the folders of trainings below `results` that are not among `kept`, in sorted order."""
    for place in PLACES:
        for directory in _folders(results / place):
            if directory.resolve() not in kept:
                possible = _companions(results, directory)
                companions = tuple(path for path in possible if _is_there(results, path))
                size = sum(_size(path) for path in (directory, *companions))
                yield Leftover(directory, companions, size, held(results, directory, liveness))


def remove(leftover: Leftover) -> list[Path]:
    """Remove a leftover; return what was left in its folder because it is not ours.

    Companions go first, so that what an interruption leaves is listed the next time.
    """
    for path in leftover.companions:
        path.unlink(missing_ok=True)
    strange = _empty(leftover.directory)
    if not strange:
        leftover.directory.rmdir()
        if not any(leftover.directory.parent.iterdir()):
            leftover.directory.parent.rmdir()
    return strange


def held(results: Path, directory: Path, liveness: Liveness) -> str | None:
    """Why a training's folder may be in use, None if it is not.

    It is taken to be while its process lives, if it was trained on this machine; on another one, which cannot
    be asked, for `QUIET_HOURS` without an end marker, unless Slurm says that its job is gone; and in any case
    for `QUIET_MINUTES` after a write.
    """
    try:
        youngest = max(path.lstat().st_mtime for path in (directory, *_everything(directory)))
    except FileNotFoundError:
        return "files come and go in it"
    age = time.time() - youngest
    if age < QUIET_MINUTES * 60:
        return f"written to {age / 60:.0f} minutes ago"
    if process := holder(directory / TRAINING):
        return f"{process} trains it"
    if not (directory / RUN).is_file():
        return None
    folder = RunFolder(results, directory)
    try:
        if folder.status(folder.signature(), liveness).name != "RUNNING":
            return None
        made = folder.description().provenance
    except InputError as error:
        return f"nobody can tell whether it runs, since it is damaged ({error})"
    if made.host == platform.node() and made.pid is not None:
        return f"process {made.pid} trains it"
    if age < QUIET_HOURS * 3600:
        return f"no end marker, and written to {age / 3600:.0f} hours ago on {made.host or 'a machine'}"
    return None


def locks(folder: Path) -> list[Path]:
    """Locks of a workflow that runs, or was killed, in this folder."""
    return sorted((folder / ".snakemake" / "locks").glob("*.lock"))


def controller(folder: Path) -> str | None:
    """The Snakemake that has jobs of this folder on a cluster: the lock of its executor."""
    return holder(folder / ".snakemake" / "submitit" / "lock")


def _folders(place: Path) -> Iterator[Path]:
    """`place`/NAME/seedN, without links: what a link points to may lie anywhere."""
    for named in _subfolders(place):
        yield from (path for path in _subfolders(named) if re.fullmatch(r"seed\d+", path.name))


def _subfolders(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def _companions(results: Path, directory: Path) -> Iterator[Path]:
    """Where logs, benchmarks and tracking cursors of a training lie, whether or not they are there."""
    place, name, seed = directory.parts[-3:]
    logs, benchmarks, tracking = (results / part for part in ("logs", "benchmarks", "tracking"))
    if place == "encoders":
        yield logs / place / f"{name}-{seed}.log"
        yield benchmarks / place / f"{name}-{seed}.tsv"
    else:
        yield from (logs / place / f"{name}-{seed}.{rule}.log" for rule in _FINETUNED)
        yield from (benchmarks / rule / f"{name}-{seed}.tsv" for rule in _FINETUNED)
    yield from (store / place / name / f"{seed}.json" for store in _subfolders(tracking))


def _is_there(results: Path, path: Path) -> bool:
    """Whether it is a file, reached from `results` through no link."""
    steps = (path, *(parent for parent in path.parents if results in parent.parents))
    return path.is_file() and not any(step.is_symlink() for step in steps)


def _everything(folder: Path) -> Iterator[Path]:
    """All files and folders below `folder`; links are not followed."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent) / name for name in (*folders, *files))


def _size(path: Path) -> int:
    sizes = {}  # of each file once, however many names it has
    for each in (path, *_everything(path)):
        with suppress(FileNotFoundError):  # a training may be replacing it
            status = each.lstat()
            sizes[status.st_ino] = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return sum(sizes.values())


def _empty(directory: Path) -> list[Path]:
    """Delete the files that are ours; return the others."""
    strange = []
    for path in sorted(directory.iterdir()):
        if path.name in SUBFOLDERS and path.is_dir() and not path.is_symlink():
            within = _empty(path)
            strange += within
            if not within:
                path.rmdir()
        elif OURS.fullmatch(path.name) and (path.is_file() or path.is_symlink()):
            path.unlink()
        else:
            strange.append(path)
    return strange
