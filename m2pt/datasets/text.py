"""Text as bytes: a file per split, of which a sample is a window.

    train.txt, val.txt    UTF-8

A byte is a token, so that there is no vocabulary to learn or to ship; its value is its class, 256 in all.
"""

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m2pt.datasets.augmentation import settings_of
from m2pt.datasets.faults import reading, refuse, regular_file
from m2pt.datasets.seeded import SeededDataset
from m2pt.errors import InputError

FILES = {"train": "train.txt", "val": "val.txt"}
NUM_BYTES = 256

_CHUNK = 1 << 20
"""Bytes that are decoded at a time when a file is checked in full."""


@dataclass(frozen=True)
class Augmentation:
    """`random_offset`: a window begins at any byte of the file, whatever its index."""

    random_offset: bool = True


class Reader(SeededDataset):
    """Windows of bytes: `(int64 (length,) in 0 to 255, 0)`; text has no labels.

    There are as many windows as fit into the file back to back, and in evaluation (`augmentation` None) these
    are the windows. `augmentation` has the optional key of `Augmentation`. A window may begin or end inside a
    character. It is mapped when it is read; nothing of the file is held in memory.

    Raises:
        InputError: the file is missing or shorter than `length` bytes, or `num_classes` is not 256.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        length: int,
        seed: int = 0,
        augmentation: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(seed)
        self._path = root / FILES[split]
        refuse(_class_count_faults(root, num_classes) + _size_faults(self._path))
        self._size = self._path.stat().st_size
        if self._size < length:
            raise InputError(f"{self._path} holds {self._size} bytes, fewer than the {length} asked for.")
        self._length = length
        self._augmentation = settings_of(Augmentation, augmentation)

    def __len__(self) -> int:
        return self._size // self._length

    def load(self, index: int) -> tuple[Tensor, int]:
        """Read window `index`, or one that begins where NumPy's global generator says."""
        start = index * self._length
        if self._augmentation is not None and self._augmentation.random_offset:
            start = int(np.random.randint(self._size - self._length + 1))
        with reading(self._path, "text"):
            window = np.memmap(self._path, np.uint8, "r", offset=start, shape=(self._length,))
        return torch.from_numpy(window.astype(np.int64)), 0


def classes(root: Path) -> list[str]:
    """Return the byte values as two hexadecimal digits, the same for any text."""
    return [f"{value:02x}" for value in range(NUM_BYTES)]


def counts(root: Path) -> dict[str, int]:
    """Return the number of bytes of each split: how many windows that is depends on their length."""
    refuse([fault for path in files(root) for fault in _size_faults(path)])
    return {split: (root / name).stat().st_size for split, name in FILES.items()}


def files(root: Path) -> Iterator[Path]:
    """Yield the file of each split."""
    return (root / name for name in FILES.values())


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every fault: a missing or empty file, another number of classes, if `full` what is not UTF-8."""
    faults = _class_count_faults(root, num_classes)
    for path in files(root):
        found = _size_faults(path)
        faults += found or (_encoding_faults(path) if full else [])
    return faults


def _class_count_faults(root: Path, num_classes: int) -> list[str]:
    if num_classes == NUM_BYTES:
        return []
    return [f"{root} holds text, whose classes are the {NUM_BYTES} bytes, not num_classes = {num_classes}."]


def _size_faults(path: Path) -> list[str]:
    try:
        with regular_file(path).open("rb") as file:
            found = file.read(1)
    except InputError as error:
        return [str(error)]
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}."]
    return [] if found else [f"{path} is empty: it should hold UTF-8 text."]


def _encoding_faults(path: Path) -> list[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                pending = len(decoder.getstate()[0])
                decoder.decode(chunk)
                done += len(chunk)
            pending = len(decoder.getstate()[0])
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return [f"{path} is not UTF-8 from byte {done - pending + error.start} on: {error.reason}."]
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}."]
    return []
