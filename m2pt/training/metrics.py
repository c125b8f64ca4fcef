"""metrics.jsonl and the losses on their way into it."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from m2pt.errors import InputError, RunError


class DivergedError(RunError):
    """Loss or weights are NaN or infinite; says at which step and lr, and names the last checkpoint."""

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
    """Say why the first `length` bytes of metrics.jsonl are not those with this SHA-256; None if they are.

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
    except OSError as error:  # of the disk or the network: what is stored may be sound
        raise InputError(f"{path} cannot be read ({error.strerror}): fix that and run it again") from error
    if len(content) < length:
        return f"{path} has {len(content)} bytes, but had {length} when the checkpoint beside it was written"
    if hashlib.sha256(content).hexdigest() != sha256:
        return f"{path} has been changed since the checkpoint beside it was written"
    return None


class MetricsFile:
    """metrics.jsonl: an object per line, without wall-clock values, so that a resume writes the same bytes.

    Opening it cuts off what was written after `length` bytes, the file's length when the checkpoint was
    taken. With `enabled` False (every process but the main one) nothing is opened or written.

    Raises:
        InputError: the file is shorter than that, so that lines are lost.
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
        """Append one line and hand it to the system, so that it survives this process."""
        if self._file is not None:
            line = json.dumps(record).encode() + b"\n"
            self._hash.update(line)
            self._file.write(line)
            self._file.flush()

    def sync(self) -> int:
        """Put the lines on the disk and return the file's length in bytes."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()

    def state(self) -> dict[str, Any]:
        """Put the lines on the disk and return what a checkpoint says of them: their length and digest."""
        return {"metrics_length": self.sync(), "metrics_sha256": self._hash.hexdigest()}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class LossWindow:
    """The losses since the last logged line, left on the device until somebody reads them.

    A GPU is not made to wait in every step, and yet the first non-finite loss is found with its exact step:
    `read` looks at each, in order, before anything (a line, a checkpoint, exported weights) is made of the
    model.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._unread: list[tuple[int, float, Tensor]] = []
        self._names: list[str] = []
        self._rows: list[list[float]] = []

    def add(self, step: int, lr: float, losses: Mapping[str, Tensor]) -> None:
        """Keep the losses of `step` (scalars on the device, "loss" first) and the learning rate it took."""
        self._names = list(losses)
        self._unread.append((step, lr, torch.stack([value.detach().float() for value in losses.values()])))

    def read(self) -> None:
        """Fetch what is on the device, averaged over the processes.

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
        """Read, return the mean of each loss over the window, and start the next window."""
        self.read()
        columns = zip(*self._rows, strict=True)
        means = {
            name: math.fsum(column) / len(self._rows)
            for name, column in zip(self._names, columns, strict=True)
        }
        self._rows.clear()
        return means

    def state(self) -> dict[str, Any]:
        """Read, and return the window in plain containers for a checkpoint."""
        self.read()
        return {"names": self._names, "rows": self._rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the window of a checkpoint.

        Raises:
            ValueError: its rows do not have a number for each name.
        """
        self._names = [str(name) for name in state["names"]]
        self._rows = [[float(value) for value in row] for row in state["rows"]]
        if any(len(row) != len(self._names) for row in self._rows):
            raise ValueError(f"rows of other lengths than {self._names}")
