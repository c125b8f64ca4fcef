"""Checkpoint files: plain containers and tensors, written atomically, with a checksum at the end.

Each holds the identity of its training, and the length and digest of the metrics.jsonl that goes with it.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.atomic import replacing
from m2pt.errors import DamagedError, InputError
from m2pt.formats.checksummed import ChecksummedWriter, check_trailer
from m2pt.pathway import is_pathway
from m2pt.run_files import FINAL, FINISHED, RESUME


def check_disk_space(directory: Path, model: nn.Module, *, averaged: bool = False) -> None:
    """Check that the checkpoints of a training fit on the disk; make its folder.

    A checkpoint holds the weights and two moments of each trainable one. There are two checkpoints while one
    is replaced, and the exported weights come on top. With `averaged`, each also holds the average of the
    merged weights.

    Raises:
        InputError: there is not enough disk space.
    """
    needed = 0
    for name, value in model.named_parameters():
        copies = (7 if value.requires_grad else 3) + (3 if averaged and not is_pathway(name) else 0)
        needed += copies * value.numel() * value.element_size()
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise InputError(
            f"{directory}: {free / 2**20:.0f} MiB are free, but training needs about "
            f"{needed / 2**20:.0f} MiB for its checkpoints; free disk space, or set results: to a folder on "
            "another disk."
        )


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (plain containers and tensors, with an "identity") to `path` atomically.

    Raises:
        InputError: the disk is full or the folder cannot be written; the previous file is untouched.
    """
    try:
        with replacing(path) as temporary, _no_crc32(), ChecksummedWriter(temporary) as file:
            torch.save(dict(state), file)
            file.write_trailer()
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be written ({error}): free disk space or fix the permissions"
        ) from error


@contextmanager
def _no_crc32() -> Iterator[None]:
    """Keep torch from computing a CRC per tensor: nothing reads them, and the trailer covers every byte."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def load(path: Path, identity: str | None = None, *, lazy: bool = False) -> dict[str, Any]:
    """Read a file of `save` onto the CPU, after verifying every byte.

    Args:
        path: file to read.
        identity: identity that it must have.
        lazy: map the tensors into memory instead of reading them.

    Raises:
        DamagedError: the file is damaged, or was not written by `save`.
        InputError: it cannot be read, or has another identity.
    """
    try:
        if not path.is_file():
            raise ValueError("it is not a regular file")
        with path.open("rb") as file:
            check_trailer(file)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=lazy)
    except MemoryError:
        raise
    except OSError as error:  # of the disk or the network: the stored bytes may be intact
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): fix that and run the command again"
        ) from error
    except Exception as error:  # a damaged file may raise anything
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


def load_final(directory: Path, identity: str) -> dict[str, Any] | None:
    """Return the content of final.pt if the training `identity` is complete, else None.

    Raises:
        InputError: as `load`.
    """
    if not ((directory / FINISHED).exists() and (directory / FINAL).exists()):
        return None
    return load(directory / FINAL, identity)


def load_resume(directory: Path, identity: str, effective_batch: int) -> dict[str, Any] | None:
    """Return the content of resume.pt, or None if there is none.

    It may be resumed by another number of processes than wrote it: the same number ends with the same bits,
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


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Add `path` to any exception of restoring its content; wrap nothing else.

    Raises:
        InputError: the content does not fit the training.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path} does not fit this training ({reason[:300]}): delete it to train from the start"
        ) from error


def load_model(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load the weights of a checkpoint, whose keys, shapes and types must be those of `model`.

    What a module stores besides tensors (`get_extra_state`) is the module's own to check.

    Raises:
        TypeError: a type differs, which torch would convert silently.
        Exception: whatever torch raises for a state that is not of this model.
    """
    model.load_state_dict(state)
    for name, own in model.state_dict().items():
        if isinstance(own, Tensor) and state[name].dtype != own.dtype:
            raise TypeError(f"{name} is {state[name].dtype}, not {own.dtype}")
