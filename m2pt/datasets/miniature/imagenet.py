"""A miniature ImageNet: handwritten digits in random light colours, if wanted among fragments of others.

The digits are MNIST's (see `m2pt.datasets.miniature.digits`). Fragments come from digits of the same split.
The ten folders are named like wnids, with a first figure 9 that WordNet does not use.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2pt.datasets.miniature.digits import CLASSES, SIDE, Digits, load_digits
from m2pt.datasets.miniature.staging import staged, write_record

STREAM = 1
"""Keeps this builder's random numbers apart from those of the others for the same seed."""

FRAGMENT = 6
"""Side of a fragment in pixels."""

INK = (150, 255)
"""The range of the ink's colours. The paper is black: masked autoencoding standardises each patch, so that on
any other ground it would spend itself on predicting the ground's noise or shading."""


def build(
    root: Path, *, seed: int, train: int = 4000, val: int = 1000, image_size: int = 32, fragments: int = 0
) -> None:
    """Write `train` and `val` JPEG images of `image_size` pixels, each with up to `fragments` fragments."""
    sizes = {"train": train, "val": val, "image_size": image_size, "fragments": fragments}
    sources: dict[str, list[str]] = {}
    with staged(root) as folder:
        for split, count in (("train", train), ("val", val)):
            digits = load_digits(split)
            rng = np.random.default_rng([seed, STREAM, len(sources)])
            for label in range(CLASSES):
                (folder / split / wnid(label)).mkdir(parents=True)
            sources[split] = []
            for number, chosen in enumerate(digits.dealt(rng, count), 1):
                image, used = _compose(rng, digits, int(chosen), image_size, fragments)
                name = wnid(int(digits.labels[chosen]))
                stem = f"{name}_{number}" if split == "train" else f"ILSVRC2012_val_{number:08d}"
                Image.fromarray(image).save(folder / split / name / f"{stem}.JPEG", quality=95, subsampling=0)
                sources[split] += [digits.names[index] for index in used]
        write_record(folder, seed=seed, sizes=sizes, sources=sources)


def wnid(label: int) -> str:
    """Return the folder of a class."""
    return f"n9{label:07d}"


def _compose(
    rng: np.random.Generator, digits: Digits, chosen: int, side: int, fragments: int
) -> tuple[NDArray[np.uint8], list[int]]:
    """Return an image (side, side, 3) and the indices of the digits in it."""
    others = rng.integers(len(digits.images), size=rng.integers(fragments + 1))
    ink = np.zeros((side, side))
    for other in others:
        source = rng.integers(5, SIDE - FRAGMENT - 4, size=2)  # the middle of a digit, where there is ink
        target = rng.integers(side - FRAGMENT + 1, size=2)
        _lighten(ink, digits.images[other][_window(source)], target)
    _lighten(ink, digits.images[chosen], rng.integers(side - SIDE + 1, size=2))
    coverage = ink[..., None] / 255
    colour = rng.uniform(*INK, 3)
    return (coverage * colour).astype(np.uint8), [chosen, *others.tolist()]


def _window(corner: NDArray[np.int64]) -> tuple[slice, slice]:
    top, left = corner
    return slice(top, top + FRAGMENT), slice(left, left + FRAGMENT)


def _lighten(ink: NDArray[np.float64], stamp: NDArray[np.uint8], corner: NDArray[np.int64]) -> None:
    """Lay `stamp` on `ink` with its upper left at `corner`; the stronger of the two shows."""
    top, left = corner
    view = ink[top : top + len(stamp), left : left + len(stamp)]
    np.maximum(view, stamp, out=view)
