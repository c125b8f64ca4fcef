"""Base of all readers: samples that any worker reproduces, and lists that workers share."""

import json
import random
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch.utils.data import Dataset


def seed_generators(*entropy: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generators from the given non-negative integers."""
    words = np.random.SeedSequence(entropy).generate_state(3, np.uint32)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.default_generator.manual_seed(int(words[2]))


class SeededDataset(Dataset[Any]):
    """A map-style dataset with samples `(epoch, index)` that are the same in any process and any order.

    torchvision and timm draw from the global generators, so these are seeded before each sample. Code that
    draws from them afterwards in the same process (the training loop) has to seed them again.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def load(self, index: int) -> Any:
        """Read sample `index` from disk and transform it; may draw from the global generators."""

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        """Return the sample for `(epoch, index)`; a plain index means epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        seed_generators(self.seed, epoch, index)
        return self.load(index)


class PackedList(Sequence[Any]):
    """A read-only list of JSON values in one byte buffer, each decoded when it is accessed.

    A Python list of a million paths takes several times the memory of its text, and every forked worker that
    touches it gets its own copy, because reading an object writes its reference count.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        encoded = [json.dumps(value, separators=(",", ":")).encode() for value in values]
        self._ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)
        self._buffer = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Decode one value, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start = int(self._ends[position - 1]) if position else 0
        return json.loads(self._buffer[start : int(self._ends[position])])
