"""metrics.jsonl, and the scalars that are averaged into its lines."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from m2pt.errors import InputError, RunError

RESERVED = ("step", "epoch", "lr")
"""Keys that the training loop writes itself."""

Value = TypeVar("Value", float, Tensor)


class DivergedError(RunError):
    """Loss or weights are NaN or infinite; the message has the step, the lr and the last checkpoint."""

    def __init__(self, what: str, step: int, lr: float) -> None:
        super().__init__(what, step, lr)
        self.what, self.step, self.lr = what, step, lr
        self.checkpoint = "none yet"

    def __str__(self) -> str:
        return (
            f"{self.what} at step {self.step}, with learning rate {self.lr:.3g}; last good "
            f"checkpoint: {self.checkpoint}. Lower the learning rate, warm up longer or clip the gradient"
        )


def metrics_fault(path: Path, length: int, sha256: str | None) -> str | None:
    """Return the problem of the first `length` bytes of metrics.jsonl; None if they have this SHA-256.

    Raises:
        InputError: it cannot be read.
    """
    if length == 0:
        return None
    if not path.is_file():
        return f"{path} is {'not a regular file' if path.exists() else 'missing'}"
    try:
        with path.open("rb") as file:
            content = file.read(length)
    except OSError as error:  # of the disk or the network: the stored bytes may be intact
        raise InputError(
            f"{path} cannot be read ({error.strerror}): fix that and run the command again"
        ) from error
    if len(content) < length:
        return f"{path} has {len(content)} bytes, but had {length} when the checkpoint beside it was written"
    if hashlib.sha256(content).hexdigest() != sha256:
        return f"{path} has been changed since the checkpoint beside it was written"
    return None


def merge_scalars(logged: Mapping[str, Value], further: Mapping[str, Value] | None) -> dict[str, Value]:
    """Return the scalars of both mappings.

    Raises:
        ValueError: a name of `further` is taken.
    """
    for name in further or ():
        if name in logged or name in RESERVED:
            raise ValueError(f"cannot log {name!r}: the name is already used in metrics.jsonl")
    return {**logged, **(further or {})}


class MetricsFile:
    """metrics.jsonl: one object per line, without wall-clock values, so that a resume writes the same bytes.

    Args:
        path: the file; anything after `length` bytes is cut off.
        length: bytes of the file when the checkpoint was saved.
        enabled: False in every process but the main one: nothing is opened or written.

    Raises:
        InputError: the file is shorter than `length`, so lines are lost.
    """

    def __init__(self, path: Path, length: int = 0, enabled: bool = True) -> None:
        self._file = path.open("a+b") if enabled else None
        self._hash = hashlib.sha256()
        if self._file is None:
            return
        self._file.seek(0)
        content = self._file.read(length)
        if len(content) < length:
            self._file.close()
            raise InputError(
                f"{path} has {len(content)} bytes, but had {length} when the checkpoint beside it was "
                "written: restore it, or delete the folder to train from the start"
            )
        self._hash.update(content)
        self._file.truncate(length)
        self._file.seek(length)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line and flush it, so that it survives this process."""
        if self._file is not None:
            line = json.dumps(record).encode() + b"\n"
            self._hash.update(line)
            self._file.write(line)
            self._file.flush()

    def sync(self) -> int:
        """Flush the lines to disk and return the length of the file in bytes."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()

    def state(self) -> dict[str, Any]:
        """Flush the lines to disk and return their length and digest, for a checkpoint."""
        return {"metrics_length": self.sync(), "metrics_sha256": self._hash.hexdigest()}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class LossWindow:
    """Losses and other scalars since the last logged line, left on the device until they are needed.

    No step waits for the GPU, and yet the first non-finite loss is found with its exact step: `read` looks at
    each, in order, before a line, a checkpoint or exported weights are written.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._unread: list[tuple[int, float, Tensor]] = []
        self._names: list[str] = []
        self._rows: list[list[float]] = []

    def add(self, step: int, lr: float, losses: Mapping[str, Tensor]) -> None:
        """Add the scalars of `step` (on the device, "loss" first) and its learning rate.

        Raises:
            ValueError: their names are not those of the steps before.
        """
        if self._names and list(losses) != self._names:
            raise ValueError(f"scalars to log are {list(losses)}, but were {self._names} in the step before")
        self._names = list(losses)
        self._unread.append((step, lr, torch.stack([value.detach().float() for value in losses.values()])))

    def read(self) -> None:
        """Fetch the scalars from the device, averaged over the processes; all of them call this.

        Raises:
            DivergedError: a loss is NaN or infinite.
        """
        if not self._unread:
            return
        values = torch.stack([row for _, _, row in self._unread])
        rows: list[list[float]] = self._accelerator.reduce(values, "mean").tolist()
        for (step, lr, _), row in zip(self._unread, rows, strict=True):
            if not math.isfinite(row[0]):
                raise DivergedError(f"the loss is {row[0]}", step, lr)
        self._rows += rows
        self._unread.clear()

    def mean(self) -> dict[str, float]:
        """Read, return the mean of each scalar over the window, and start the next window."""
        self.read()
        columns = zip(*self._rows, strict=True)
        means = {
            name: math.fsum(column) / len(self._rows)
            for name, column in zip(self._names, columns, strict=True)
        }
        self._rows.clear()
        return means

    def state(self) -> dict[str, Any]:
        """Read, and return the window as plain containers for a checkpoint."""
        self.read()
        return {"names": self._names, "rows": self._rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue the window of a checkpoint.

        Raises:
            ValueError: a row does not have one number per name.
        """
        self._names = [str(name) for name in state["names"]]
        self._rows = [[float(value) for value in row] for row in state["rows"]]
        if any(len(row) != len(self._names) for row in self._rows):
            raise ValueError(f"a row does not have one number for each of {self._names}")
