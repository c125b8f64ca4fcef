"""The folder of a run before and after a training: state of earlier attempts, and how each attempt ended."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.distributed import DistError

from m2pt.atomic import parts, remove_part, write_json
from m2pt.errors import DamagedError, InputError
from m2pt.run_files import (
    DAMAGED,
    FAILED,
    FINAL,
    FINISHED,
    INTERRUPTED,
    LOG,
    METRICS,
    RESUME,
    SKIPPED,
    SUPERSEDED,
)
from m2pt.training import checkpoint, finished
from m2pt.training.launch import rank_and_world
from m2pt.training.metrics import metrics_fault

_STATE = (RESUME, FINAL, METRICS, SKIPPED, FINISHED, INTERRUPTED, FAILED)


def prepare_directory(directory: Path, identity: str) -> list[str]:
    """Make sure that all training state in `directory` is intact and belongs to the run `identity`.

    Damaged state, or state with a damaged part of metrics.jsonl, is moved to `damaged/`; training resumes
    from what is left. No older checkpoint is kept for that: it would double the disk space, and starting
    over ends with the same bits. State of another identity (a recipe value or the input weights changed) is
    never resumed: it is moved to `superseded/`, and training starts from step 0. Each replaces what an
    earlier call moved there. Temporary files of killed processes are deleted.

    Returns:
        One line for the log per thing that was moved.

    Raises:
        InputError: the directory cannot be written, or a checkpoint in it was not written by this project.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for part in parts(directory):
            remove_part(part)
        lines = _move_damaged_state(directory)
        if not (directory / FINAL).exists():
            remove(directory, FINISHED)  # exported before, but needed again
        return lines + _move_superseded_state(directory, identity)
    except OSError as error:
        raise InputError(f"{directory} cannot be written ({error}): fix the permissions") from error


def remove(directory: Path, *names: str) -> None:
    """Delete those of the named files of `directory` that exist."""
    for name in names:
        (directory / name).unlink(missing_ok=True)


def write_marker(directory: Path, name: str, *, identity: str, step: int, **content: Any) -> None:
    """Write `FINISHED`, `INTERRUPTED` or `FAILED` for the training `identity`, after `step` steps."""
    write_json(directory / name, {"identity": identity, "step": step, **content})


def mark_failed(directory: Path, *, identity: str, step: int, error: Exception) -> None:
    """Write failed.json, unless another process did.

    The process that fails knows the reason; the others only see that it is gone. The main process writes that
    if the failed one wrote nothing.
    """
    marker = directory / FAILED
    with suppress(OSError):  # report the error itself, not the failure to write its marker
        if not is_lost_process(error) or not (rank_and_world()[0] or marker.exists()):
            reason = f"{type(error).__name__}: {error}"
            write_marker(directory, FAILED, identity=identity, step=step, reason=reason)
        elif marker.exists():
            marker.touch()  # the youngest marker counts


def is_lost_process(error: Exception) -> bool:
    """Return whether `error` may mean that another process is gone (gloo raises a plain RuntimeError)."""
    return rank_and_world()[1] > 1 and (type(error) is RuntimeError or isinstance(error, DistError))


def _move_damaged_state(directory: Path) -> list[str]:
    faults = []
    for name in (METRICS, LOG):  # opening a pipe would wait for its other end
        path = directory / name
        if os.path.lexists(path) and not path.is_file():
            faults.append(f"{path} is not a regular file")
            _move(directory, DAMAGED, name)
    for name in (FINAL, RESUME):
        path = directory / name
        if not path.exists():
            continue
        try:
            state = checkpoint.load(path, lazy=True)
        except DamagedError as error:
            faults.append(str(error).partition(": delete it")[0])
            _move(directory, DAMAGED, name)
            continue
        with checkpoint.restoring(path):
            length, sha256 = state.get("metrics_length", 0), state.get("metrics_sha256")
            fault = metrics_fault(directory / METRICS, length, sha256)
        if fault:
            faults.append(f"{fault}, so {path} cannot be used")
            _move(directory, DAMAGED, name, METRICS)
    if not faults:
        return []
    source = next((name for name in (FINAL, RESUME) if (directory / name).exists()), None)
    consequence = f"training resumes from {source}" if source else "training starts from step 0"
    return [f"{fault}; moved to {directory / DAMAGED} (safe to delete); {consequence}" for fault in faults]


def _move_superseded_state(directory: Path, identity: str) -> list[str]:
    checkpoints = [path for name in (RESUME, FINAL) if (path := directory / name).exists()]
    others = {checkpoint.load(path, lazy=True)["identity"] for path in checkpoints} - {identity}
    kept = finished.stored_identity(directory)
    if kept not in (None, identity):
        finished.delete(directory)  # like its exported weights, which Snakemake has deleted
    if not others and kept in (None, identity):
        return []
    moved = ""
    if others:
        shutil.rmtree(directory / SUPERSEDED, ignore_errors=True)
        _move(directory, SUPERSEDED, *_STATE)
        moved = f"; the earlier state was moved to {directory / SUPERSEDED} (safe to delete)"
    before = ", ".join(sorted(others or {str(kept)}))
    return [
        f"the spec or the input weights changed (run {before} before, {identity} now): training starts from "
        f"step 0{moved}"
    ]


def _move(directory: Path, folder: str, *names: str) -> None:
    """Move those of the named files that exist to a folder in `directory`, replacing what is there."""
    (directory / folder).mkdir(exist_ok=True)
    for name in names:
        if os.path.lexists(directory / name):
            target = directory / folder / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            (directory / name).rename(target)
