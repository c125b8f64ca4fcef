"""What training keeps in a run's directory, and whose it is.

`resume.pt` (during training) and `final.pt` (after it) are plain containers and tensors, written atomically,
and carry the run's identity. `finished.json`, `interrupted.json` and `failed.json` say how the last training
ended.
"""

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from m2pt.atomic import replacing, write_json
from m2pt.errors import InputError
from m2pt.training.signals import INTERRUPTED

RESUME = "resume.pt"
FINAL = "final.pt"
METRICS = "metrics.jsonl"
LOG = "train.log"
FINISHED = "finished.json"
FAILED = "failed.json"
SUPERSEDED = "superseded"

_STATE = (RESUME, FINAL, METRICS, FINISHED, INTERRUPTED, FAILED)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (plain containers and tensors, with an "identity") to `path` atomically.

    Raises:
        InputError: the disk is full or the folder cannot be written; the previous file is untouched.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be written ({error}): free disk space or mend the permissions"
        ) from error


def load(path: Path, identity: str | None = None, *, lazy: bool = False) -> dict[str, Any]:
    """Read what `save` wrote, on the CPU; `lazy` maps the tensors instead of reading them.

    Raises:
        InputError: the file is truncated, is no checkpoint of ours, or is not of `identity`.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=lazy)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} is damaged or no training checkpoint ({reason}): delete it to train from the start"
        ) from error
    if not isinstance(state, dict) or "identity" not in state:
        raise InputError(f"{path} is no training checkpoint: delete it to train from the start")
    if identity is not None and state["identity"] != identity:
        raise InputError(
            f"{path} belongs to the run {state['identity']}, not to {identity} (another spec or other input "
            "weights): delete or move its folder"
        )
    return state


def mark(directory: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write the marker `name` (`FINISHED`, `INTERRUPTED` or `FAILED`)."""
    write_json(directory / name, dict(content))


def remove(directory: Path, *names: str) -> None:
    """Delete the named files of `directory` that exist."""
    for name in names:
        (directory / name).unlink(missing_ok=True)


def prepare_directory(directory: Path, identity: str) -> list[str]:
    """Make `directory` ready for the run `identity`: afterwards all training state in it is that run's.

    State of another identity (a recipe value or the input weights have changed since) is never resumed: it is
    moved to `superseded/`, replacing what an earlier change put there, and training will start from step 0. A
    temporary file that a killed process left behind is deleted.

    Returns:
        Lines that say what was moved, if anything was.

    Raises:
        InputError: the directory cannot be written, or a checkpoint in it is damaged.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in _STATE:
            for leftover in directory.glob(f".{name}.*.part"):
                leftover.unlink()
        if not (directory / FINAL).exists():
            remove(directory, FINISHED)  # its weights were exported and are wanted again
        checkpoints = [path for name in (RESUME, FINAL) if (path := directory / name).exists()]
        foreign = {load(path, lazy=True)["identity"] for path in checkpoints} - {identity}
        if not foreign:
            return []
        superseded = directory / SUPERSEDED
        if superseded.exists():
            shutil.rmtree(superseded)
        superseded.mkdir()
        for name in _STATE:
            if (directory / name).exists():
                (directory / name).rename(superseded / name)
    except OSError as error:
        raise InputError(f"{directory} cannot be written ({error}): mend the permissions") from error
    return [
        f"the spec or the input weights changed (run {', '.join(sorted(foreign))} before, {identity} now): "
        f"training starts from step 0; the earlier state is in {superseded}, which may be deleted"
    ]


def load_finished(directory: Path, identity: str) -> dict[str, Any] | None:
    """The content of `final.pt` if the training `identity` is complete, else None.

    Raises:
        InputError: as `load`.
    """
    if not ((directory / FINISHED).exists() and (directory / FINAL).exists()):
        return None
    return load(directory / FINAL, identity)


def load_resume(directory: Path, identity: str, effective_batch: int) -> dict[str, Any] | None:
    """The content of `resume.pt`, or None if there is none.

    Another number of processes than wrote it may go on from it: only the same number ends with the same bits,
    another one agrees as far as `TrainingSettings.share` says.

    Raises:
        InputError: as `load`, or the checkpoint was written with another effective batch.
    """
    if not (directory / RESUME).exists():
        return None
    state = load(directory / RESUME, identity)
    if state["effective_batch"] != effective_batch:
        raise InputError(
            f"{directory / RESUME} was written with {state['effective_batch']} samples per step, not "
            f"{effective_batch}: delete it to train from the start"
        )
    return state
