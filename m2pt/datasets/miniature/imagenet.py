"""A small ImageNet: handwritten digits in random light colors on a black background.

The digits are MNIST's (see `m2pt.datasets.miniature.pictures`). The ten folders are named like wnids, with a
first digit 9 that WordNet does not use.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2pt.datasets.miniature.pictures import CLASSES, SIDE, load_digits
from m2pt.datasets.miniature.staging import staged, write_record

STREAM = 1
"""Keeps this dataset's random numbers independent of those of the others."""

INK = (150, 255)
"""Range of the digits' colors. The background is black: masked autoencoding standardizes each patch, so with
any other background most of its loss would be noise or shading."""


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
    """Return the name of a class's folder."""
    return f"n9{label:07d}"


def _compose(rng: np.random.Generator, digit: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return an image (side, side, 3) with the digit (28, 28) at a random place."""
    coverage = np.zeros((side, side, 1))
    top, left = rng.integers(side - SIDE + 1, size=2)
    coverage[top : top + SIDE, left : left + SIDE, 0] = digit / 255
    return (coverage * rng.uniform(*INK, 3)).astype(np.uint8)
