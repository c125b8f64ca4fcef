"""What training keeps in a run's directory, and whose it is.

`resume.pt` (during training) and `final.pt` (after it) are plain containers and tensors, written atomically,
end with a checksum, and carry the run's identity and the digest of the metrics.jsonl that goes with them.
`finished.json`, `interrupted.json` and `failed.json` say how the last training ended. What is damaged is set
aside in `damaged/`, and the training starts over; what another spec has made goes to `superseded/`.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.atomic import parts, remove_part, replacing, write_json
from m2pt.errors import DamagedError, InputError
from m2pt.formats.sealed import SealedWriter, check_seal
from m2pt.training import finished
from m2pt.training.metrics import metrics_fault
from m2pt.training.signals import INTERRUPTED

RESUME = "resume.pt"
FINAL = "final.pt"
METRICS = "metrics.jsonl"
LOG = "train.log"
FINISHED = "finished.json"
FAILED = "failed.json"
SUPERSEDED = "superseded"
DAMAGED = finished.DAMAGED

UNFINISHED = (RESUME, FINAL, INTERRUPTED, FAILED)
"""What a training that is complete, and whose weights are exported, leaves nothing of."""

_STATE = (RESUME, FINAL, METRICS, FINISHED, INTERRUPTED, FAILED)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (plain containers and tensors, with an "identity") to `path` atomically.

    Raises:
        InputError: the disk is full or the folder cannot be written; the previous file is untouched.
    """
    try:
        with replacing(path) as temporary, _unsummed_records(), SealedWriter(temporary) as file:
            torch.save(dict(state), file)
            file.seal()
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be written ({error}): free disk space or fix the permissions"
        ) from error


@contextmanager
def _unsummed_records() -> Iterator[None]:
    """Keep torch from summing up each tensor: nothing reads those sums, and the seal is over everything."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def load(path: Path, identity: str | None = None, *, lazy: bool = False) -> dict[str, Any]:
    """Read what `save` wrote, on the CPU; `lazy` maps the tensors instead of reading them.

    Every byte is checked in either case.

    Raises:
        DamagedError: the file is damaged, or no checkpoint of ours.
        InputError: it cannot be read, or is not of `identity`.
    """
    try:
        if not path.is_file():
            raise ValueError("it is not a regular file")
        with path.open("rb") as file:
            check_seal(file)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=lazy)
    except MemoryError:
        raise
    except OSError as error:  # of the disk or the network: what is stored may be sound
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): fix that and run it again"
        ) from error
    except Exception as error:  # a damaged file fails in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DamagedError(
            f"{path} is damaged or not a training checkpoint ({reason}): delete it to train from the start"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("identity"), str):
        raise InputError(f"{path} is not a training checkpoint: delete it to train from the start")
    if identity is not None and state["identity"] != identity:
        raise InputError(
            f"{path} belongs to the run {state['identity']}, not to {identity} (another spec or other input "
            "weights): delete or move its folder"
        )
    return state


@contextmanager
def taking_up(path: Path) -> Iterator[None]:
    """Around nothing but putting the content of `path` where it belongs.

    Raises:
        InputError: it does not fit there.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path} does not fit this training ({reason[:300]}): delete it to train from the start"
        ) from error


def load_model(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model the weights of a checkpoint, whose keys, shapes and types must be its own.

    Raises:
        TypeError: a type is another; torch would convert it.
        Exception: whatever torch raises of a state that is none of this model.
    """
    model.load_state_dict(state)
    for name, own in model.state_dict().items():
        if state[name].dtype != own.dtype:
            raise TypeError(f"{name} is {state[name].dtype}, not {own.dtype}")


def mark(directory: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write the marker `name` (`FINISHED`, `INTERRUPTED` or `FAILED`)."""
    write_json(directory / name, dict(content))


def remove(directory: Path, *names: str) -> None:
    """Delete the named files of `directory` that exist."""
    for name in names:
        (directory / name).unlink(missing_ok=True)


def prepare_directory(directory: Path, identity: str) -> list[str]:
    """Make `directory` ready for the run `identity`: then all training state in it is sound and that run's.

    Damaged state, or state whose part of metrics.jsonl is damaged, is moved to `damaged/`; training goes on
    from what is left. No older checkpoint is kept for that: it would take as much room again, and starting
    over ends with the same bits. State of another identity (a recipe value or the input weights have changed
    since) is never resumed: it is moved to `superseded/`, and training will start from step 0. Each replaces
    what an earlier call put there. A temporary file that a killed process left behind is deleted.

    Returns:
        Lines that say what was moved, if anything was.

    Raises:
        InputError: the directory cannot be written, or a checkpoint in it is none of ours.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for part in parts(directory):
            remove_part(part)
        lines = _set_damaged_aside(directory)
        if not (directory / FINAL).exists():
            remove(directory, FINISHED)  # its weights were exported and are wanted again
        return lines + _set_foreign_aside(directory, identity)
    except OSError as error:
        raise InputError(f"{directory} cannot be written ({error}): fix the permissions") from error


def _set_damaged_aside(directory: Path) -> list[str]:
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
            state = load(path, lazy=True)
        except DamagedError as error:
            faults.append(str(error).partition(": delete it")[0])
            _move(directory, DAMAGED, name)
            continue
        with taking_up(path):
            length, sha256 = state.get("metrics_length", 0), state.get("metrics_sha256")
            fault = metrics_fault(directory / METRICS, length, sha256)
        if fault:
            faults.append(f"{fault}, so {path} has lost its first lines")
            _move(directory, DAMAGED, name, METRICS)
    if not faults:
        return []
    left = next((f"goes on from {name}" for name in (FINAL, RESUME) if (directory / name).exists()), None)
    aside = f"set aside in {directory / DAMAGED}, which may be deleted"
    return [f"{fault}; {aside}; training {left or 'starts from step 0'}" for fault in faults]


def _set_foreign_aside(directory: Path, identity: str) -> list[str]:
    checkpoints = [path for name in (RESUME, FINAL) if (path := directory / name).exists()]
    foreign = {load(path, lazy=True)["identity"] for path in checkpoints} - {identity}
    kept = finished.identity_of(directory)
    if kept not in (None, identity):
        finished.forget(directory)  # as its exported weights are, which Snakemake has deleted
    if not foreign and kept in (None, identity):
        return []
    aside = ""
    if foreign:
        shutil.rmtree(directory / SUPERSEDED, ignore_errors=True)
        _move(directory, SUPERSEDED, *_STATE)
        aside = f"; the earlier state is in {directory / SUPERSEDED}, which may be deleted"
    before = ", ".join(sorted(foreign or {str(kept)}))
    return [
        f"the spec or the input weights changed (run {before} before, {identity} now): training starts from "
        f"step 0{aside}"
    ]


def _move(directory: Path, folder: str, *names: str) -> None:
    """Move those of the named files that exist to a folder in `directory`, in place of what is there."""
    (directory / folder).mkdir(exist_ok=True)
    for name in names:
        if os.path.lexists(directory / name):
            target = directory / folder / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            (directory / name).rename(target)


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
    if (stored := state.get("effective_batch")) != effective_batch:
        raise InputError(
            f"{directory / RESUME} was written with {stored} samples per step, not "
            f"{effective_batch}: delete it to train from the start"
        )
    return state
