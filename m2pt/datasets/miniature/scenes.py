"""Photographs with handwritten digits on them: the images of the small COCO and ADE20K.

See `pictures` for the sources of both. The left part of each photograph is for training, the right part for
validation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2pt.datasets.miniature.pictures import load_digits, load_photographs

COLUMNS = {"train": slice(0, 420), "val": slice(420, 640)}
"""Columns of a photograph, 640 pixels wide, that belong to a split."""

DIMMING = 0.7
"""Brightness of the photographs; at full brightness small models hardly find the digits."""

PLACING_TRIES = 50
"""Attempts to place a digit without overlap before it is left out."""

SOLID = 0.5
"""Coverage from which a pixel belongs to a digit; below it, but above 0, it is the digit's soft edge."""


@dataclass(frozen=True)
class Placed:
    """A digit in a scene: its class, and its coverage (H, W) of every pixel in [0, 1]."""

    label: int
    coverage: NDArray[np.float64]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The pixels (H, W) that belong to the digit."""
        return self.coverage >= SOLID


@dataclass(frozen=True)
class Scene:
    """`image` (H, W, 3) uint8, the digits on it, and the names of its sources."""

    image: NDArray[np.uint8]
    digits: list[Placed]
    sources: list[str]


def scenes(
    rng: np.random.Generator, split: str, numbers: NDArray[np.int64], *, side: int, heights: range
) -> Iterator[Scene]:
    """Yield a scene of `side` pixels for each of `numbers`, with that many digits of the given heights."""
    pool, photographs = load_digits(split), load_photographs()
    names = sorted(photographs)
    dealt = iter(pool.dealt(rng, int(numbers.sum())))
    for number in numbers:
        name = names[rng.integers(len(names))]
        canvas = _crop(rng, photographs[name][:, COLUMNS[split]], side) * DIMMING
        scene = Scene(canvas.astype(np.uint8), [], [f"{name} {split} part"])
        for index in (int(next(dealt)) for _ in range(number)):
            coverage = _place(rng, pool.images[index], scene.digits, side, heights)
            if coverage is not None:
                scene.digits.append(Placed(int(pool.labels[index]), coverage))
                scene.sources.append(pool.names[index])
                canvas = canvas * (1 - coverage[..., None]) + 255 * coverage[..., None]
        yield Scene(canvas.round().astype(np.uint8), scene.digits, scene.sources)


def _crop(rng: np.random.Generator, photograph: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """Return a random square of the photograph, `side` to 2 `side` pixels wide, resized to `side`."""
    height, width = photograph.shape[:2]
    extent = int(rng.integers(side, min(2 * side, height, width) + 1))
    top, left = rng.integers(height - extent + 1), rng.integers(width - extent + 1)
    square = Image.fromarray(photograph[top : top + extent, left : left + extent])
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC), np.float64)


def _place(
    rng: np.random.Generator, image: NDArray[np.uint8], placed: list[Placed], side: int, heights: range
) -> NDArray[np.float64] | None:
    """Return the coverage (side, side) of a digit at a random free place; None if there is none."""
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    stroke = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    taken = np.zeros((side, side), bool)
    for other in placed:
        taken[_box(other.coverage > 0)] = True
    for _ in range(PLACING_TRIES):
        height = int(rng.integers(heights.start, heights.stop))
        width = max(4, round(stroke.width * height / stroke.height))
        if width > side:
            continue
        top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
        box = slice(top, top + height), slice(left, left + width)
        if not taken[box].any():
            coverage = np.zeros((side, side))
            coverage[box] = np.asarray(stroke.resize((width, height), Image.Resampling.BICUBIC), float) / 255
            return coverage
    return None


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
