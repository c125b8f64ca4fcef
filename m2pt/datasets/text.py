"""Text as bytes: one file per split; a sample is a window of it.

    train.txt, val.txt    UTF-8

Every byte is a token, so no vocabulary is needed; its value is its class, 256 in all.
"""

import codecs
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m2pt.datasets.augmentations import TextAugmentation
from m2pt.datasets.base import SeededDataset
from m2pt.datasets.checks import raise_problems
from m2pt.datasets.reading import reading, regular_file
from m2pt.errors import InputError

FILES = {"train": "train.txt", "val": "val.txt"}
NUM_BYTES = 256

_CHUNK = 1 << 20
"""Bytes that the full check decodes per chunk."""


class Reader(SeededDataset):
    """Windows of bytes: `(int64 (length,) in 0 to 255, 0)`; text has no labels.

    There are as many windows as fit into the file back to back; without `augmentation` these are the samples.
    A window may begin or end inside a character. Windows are memory-mapped, so the file is never loaded.

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
        augmentation: TextAugmentation | None = None,
    ) -> None:
        super().__init__(seed)
        self._path = root / FILES[split]
        raise_problems(_class_count_problems(root, num_classes) + _size_problems(self._path))
        self._size = self._path.stat().st_size
        if self._size < length:
            raise InputError(f"{self._path} has {self._size} bytes, fewer than length = {length}.")
        self._length = length
        self._augmentation = augmentation

    def __len__(self) -> int:
        return self._size // self._length

    def load(self, index: int) -> tuple[Tensor, int]:
        """Read window `index`, or with `random_offset` one at a random place (NumPy's global generator)."""
        start = index * self._length
        if self._augmentation is not None and self._augmentation.random_offset:
            start = int(np.random.randint(self._size - self._length + 1))
        with reading(self._path, "text"):
            window = np.memmap(self._path, np.uint8, "r", offset=start, shape=(self._length,))
        return torch.from_numpy(window.astype(np.int64)), 0


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: TextAugmentation | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return random bytes (B, length) and, in the place of labels, numbers (B,)."""
    windows = torch.randint(num_classes, (batch_size, input["length"]), device=device)
    return windows, torch.randint(num_classes, (batch_size,), device=device)


def classes(root: Path) -> list[str]:
    """Return the byte values as two hexadecimal digits, the same for any text."""
    return [f"{value:02x}" for value in range(NUM_BYTES)]


def counts(root: Path) -> dict[str, int]:
    """Return the number of bytes of each split; the number of windows depends on their length."""
    raise_problems([problem for path in files(root) for problem in _size_problems(path)])
    return {split: (root / name).stat().st_size for split, name in FILES.items()}


def files(root: Path) -> Iterator[Path]:
    """Yield the file of each split."""
    return (root / name for name in FILES.values())


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every problem: a missing or empty file, wrong `num_classes`, and if `full` invalid UTF-8."""
    problems = _class_count_problems(root, num_classes)
    for path in files(root):
        found = _size_problems(path)
        problems += found or (_encoding_problems(path) if full else [])
    return problems


def _class_count_problems(root: Path, num_classes: int) -> list[str]:
    if num_classes == NUM_BYTES:
        return []
    return [f"{root}: text has {NUM_BYTES} classes, the byte values, not num_classes = {num_classes}."]


def _size_problems(path: Path) -> list[str]:
    try:
        with regular_file(path).open("rb") as file:
            found = file.read(1)
    except InputError as error:
        return [str(error)]
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}."]
    return [] if found else [f"{path} is empty: it must be UTF-8 text."]


def _encoding_problems(path: Path) -> list[str]:
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
        return [f"{path} is not UTF-8 at byte {done - pending + error.start}: {error.reason}."]
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}."]
    return []
