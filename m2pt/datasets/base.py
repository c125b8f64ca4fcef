"""Base of all readers: samples that any worker reproduces, and lists that workers share."""

import json
import random
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch.utils.data import Dataset

from m2pt.datasets.corrupt import MOST_IN_A_ROW, DatasetError, most_corrupt, note_skipped
from m2pt.errors import InputError, count


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

    skip_corrupt = False
    """Whether a corrupt sample is replaced by the next one that can be read; only ever for training."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def load(self, index: int) -> Any:
        """Read sample `index` from disk and transform it; may draw from the global generators."""

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        """Return the sample for `(epoch, index)`; a plain index means epoch 0.

        Raises:
            InputError: it is corrupt; with `skip_corrupt`, so are all that could replace it.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        seed_generators(self.seed, epoch, index)
        try:
            return self.load(index)
        except InputError as error:
            if not self.skip_corrupt or isinstance(error, DatasetError):
                raise
            sample = self._replacement(epoch, index, error)
            note_skipped(error)
            return sample

    def _replacement(self, epoch: int, index: int, error: InputError) -> Any:
        """Return what replaces a corrupt sample: a function of (seed, epoch, index) like any other."""
        most = min(MOST_IN_A_ROW, most_corrupt(len(self)))
        for distance in range(1, most + 1):
            seed_generators(self.seed, epoch, index, distance)
            try:
                return self.load((index + distance) % len(self))
            except DatasetError:
                raise
            except InputError:
                continue
        following = count(most, "sample", "samples")
        raise InputError(
            f"{error} The next {following} of the split cannot be read either: too many to skip; restore or "
            "remove the files."
        ) from error


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
