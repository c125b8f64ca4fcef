"""Normalizing, sampling and augmenting point clouds (n, 3), shared by the readers of point clouds."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from m2pt.datasets.augmentations import PointcloudAugmentation, ShapeAugmentation

FARTHEST = 1e4
"""Largest magnitude of a coordinate. All layouts have clouds within a few units of the origin; an outlier
would shrink the rest of the cloud to a point when it is scaled."""

SMALLEST = 1e-6
"""Smallest extent of a cloud along its longest side; below, it cannot be scaled."""


def cloud_problem(cloud: NDArray[Any]) -> str | None:
    """Return why a cloud (n, 3), n > 0, cannot be normalized; None if it can."""
    lowest, highest = cloud.min(axis=0), cloud.max(axis=0)  # NaN if there is one
    if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
        return "has coordinates that are infinite or NaN"
    if (farthest := max(-lowest.min(), highest.max())) > FARTHEST:
        return f"has a coordinate of magnitude {farthest:g}; at most {FARTHEST:g} is allowed"
    if float((highest - lowest).max()) < SMALLEST:
        return f"has points that are all within {SMALLEST:g} of each other"
    return None


def unit_sphere(cloud: NDArray[np.float32]) -> NDArray[np.float32]:
    """Center a cloud (n, 3) on its mean and scale it so that its farthest point has norm 1."""
    centered = cloud - cloud.mean(axis=0)
    radius = np.sqrt(np.square(centered).sum(axis=1).max())
    return centered / max(radius, np.finfo(np.float32).tiny)


def sample_rows(total: int, wanted: int, *, random: bool) -> NDArray[np.int64]:
    """Choose `wanted` of `total` rows without repetition: at random, or at equal steps.

    Draws from NumPy's global generator if `random`. Requires `total` >= `wanted`.
    """
    return np.random.permutation(total)[:wanted] if random else np.arange(wanted) * total // wanted


def scale_and_shift(cloud: NDArray[np.float32], settings: PointcloudAugmentation) -> NDArray[np.float32]:
    """Augment a cloud (n, 3) as Point-MAE does; draws from NumPy's global generator."""
    isotropic = isinstance(settings, ShapeAugmentation) and settings.isotropic
    factor = np.random.uniform(*settings.scale, size=1 if isotropic else 3)
    shift = np.random.uniform(-settings.translate, settings.translate, size=3)
    return (cloud * factor + shift).astype(np.float32)


def random_clouds(batch_size: int, points: int, device: torch.device) -> Tensor:
    """Return float32 (batch_size, points, 3): random points on the unit sphere."""
    return functional.normalize(torch.randn(batch_size, points, 3, device=device), dim=-1)
