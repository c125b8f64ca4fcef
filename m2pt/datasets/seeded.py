"""Randomness of a sample is a function of (seed, epoch, index), in whichever worker it is made."""

import random
from abc import abstractmethod
from typing import Any

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
    """A map-style dataset whose sample `(epoch, index)` is the same in any process and any order.

    torchvision and timm draw from the global generators, so those are seeded before each sample; whoever
    draws from them in the same process afterwards (the training loop) seeds them again for its own purpose.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    @abstractmethod
    def load(self, index: int) -> Any:
        """Read item `index` from disk and apply the view; may draw from the global generators."""

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        """Return the sample for `(epoch, index)`; a plain index means epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        seed_generators(self.seed, epoch, index)
        return self.load(index)
