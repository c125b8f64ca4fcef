"""A miniature ImageNet: handwritten digits in random light colours on black paper.

The digits are MNIST's (see `m2pt.datasets.miniature.digits`). The ten folders are named like wnids, with
a first figure 9 that WordNet does not use.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2pt.datasets.miniature.digits import CLASSES, SIDE, load_digits
from m2pt.datasets.miniature.staging import staged, write_record

STREAM = 1
"""Keeps this builder's random numbers apart from those of the others for the same seed."""

INK = (150, 255)
"""The range of the ink's colours. The paper is black: masked autoencoding standardises each patch, so that on
any other ground it would spend itself on predicting the ground's noise or shading."""


def build(root: Path, *, seed: int, train: int = 4000, val: int = 1000, image_size: int = 32) -> None:
    """Write `train` and `val` JPEG images of `image_size` pixels."""
    sizes = {"train": train, "val": val, "image_size": image_size}
    sources: dict[str, list[str]] = {}
    with staged(root) as folder:
        for split, count in (("train", train), ("val", val)):
            digits = load_digits(split)
            rng = np.random.default_rng([seed, STREAM, len(sources)])
            for label in range(CLASSES):
                (folder / split / wnid(label)).mkdir(parents=True)
            sources[split] = []
            for number, chosen in enumerate(digits.dealt(rng, count), 1):
                image = _compose(rng, digits.images[chosen], image_size)
                name = wnid(int(digits.labels[chosen]))
                stem = f"{name}_{number}" if split == "train" else f"ILSVRC2012_val_{number:08d}"
                Image.fromarray(image).save(folder / split / name / f"{stem}.JPEG", quality=95, subsampling=0)
                sources[split].append(digits.names[chosen])
        write_record(folder, seed=seed, sizes=sizes, sources=sources)


def wnid(label: int) -> str:
    """Return the folder of a class."""
    return f"n9{label:07d}"


def _compose(rng: np.random.Generator, digit: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return an image (side, side, 3) with the digit (28, 28) somewhere in it."""
    coverage = np.zeros((side, side, 1))
    top, left = rng.integers(side - SIDE + 1, size=2)
    coverage[top : top + SIDE, left : left + SIDE, 0] = digit / 255
    return (coverage * rng.uniform(*INK, 3)).astype(np.uint8)
