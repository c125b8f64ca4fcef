"""What the readers of point clouds share: normalising, sampling and augmenting a cloud (n, 3)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FARTHEST = 1e4
"""Largest magnitude of a coordinate. The clouds of all layouts lie within a few units of the origin; a single
stray point would shrink all others to one when the cloud is scaled."""

SMALLEST = 1e-6
"""Smallest extent of a cloud along its longest side: below, it has no shape that could be scaled."""


@dataclass(frozen=True)
class Augmentation:
    """Point-MAE's: a random factor and a random shift of the normalised cloud.

    `scale` bounds the factor, `translate` the absolute shift along each axis. Each axis has a factor of its
    own (official pretraining: 2/3 to 3/2, shift 0.2), or all have the same one if `isotropic` (official part
    segmentation: 0.8 to 1.25, shift 0.1).
    """

    scale: tuple[float, float] = (1.0, 1.0)
    translate: float = 0.0
    isotropic: bool = False

    def __call__(self, cloud: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale and shift a cloud (n, 3); draws from NumPy's global generator."""
        factor = np.random.uniform(*self.scale, size=1 if self.isotropic else 3)
        shift = np.random.uniform(-self.translate, self.translate, size=3)
        return (cloud * factor + shift).astype(np.float32)


def cloud_fault(cloud: NDArray[Any]) -> str | None:
    """Say why a cloud (n, 3), n > 0, cannot be normalised; None if it can be."""
    lowest, highest = cloud.min(axis=0), cloud.max(axis=0)  # NaN if there is one
    if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
        return "holds coordinates that are infinite or not a number"
    if (farthest := max(-lowest.min(), highest.max())) > FARTHEST:
        return f"holds a coordinate of magnitude {farthest:g}, beyond {FARTHEST:g}"
    if float((highest - lowest).max()) < SMALLEST:
        return f"holds points that are all the same, or within {SMALLEST:g} of each other"
    return None


def unit_sphere(cloud: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre a cloud (n, 3) on its mean and scale it so that its farthest point has norm 1."""
    centred = cloud - cloud.mean(axis=0)
    radius = np.sqrt(np.square(centred).sum(axis=1).max())
    return centred / max(radius, np.finfo(np.float32).tiny)


def sample_rows(total: int, wanted: int, *, random: bool) -> NDArray[np.int64]:
    """Choose `wanted` of `total` rows without repetition: at random, or at equal steps.

    Draws from NumPy's global generator if `random`. The caller makes sure that there are enough rows.
    """
    return np.random.permutation(total)[:wanted] if random else np.arange(wanted) * total // wanted
