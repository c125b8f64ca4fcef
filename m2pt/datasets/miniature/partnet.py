"""A small PartNet: parametric chairs and lamps at level 1, with a piece of each shape left unlabeled."""

from pathlib import Path

import h5py
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from m2pt.datasets.miniature.objects import chair, lamp
from m2pt.datasets.miniature.shapes import parameter_digest, sample_surfaces
from m2pt.datasets.miniature.staging import staged, write_record
from m2pt.datasets.partnet import FOLDER, LISTS, UNLABELED

STREAM = 24
"""Keeps this dataset's random numbers independent of those of the others."""

SUBSETS = {"Chair-1": chair, "Lamp-1": lamp}
"""Both have four parts and so, with the unlabeled one, five classes."""


def build(
    root: Path, *, seed: int, train: int = 160, val: int = 80, points: int = 512, unlabelled: float = 0.05
) -> None:
    """Write `train` and `val` shapes of `points` points (officially 10,000) for each subset.

    The share `unlabelled` of the points of every shape, those around a random one, has class 0. The official
    validation list is left out, since it is not read.
    """
    draw = np.random.default_rng([seed, STREAM])
    sources: dict[str, list[str]] = {"train": [], "val": []}
    with staged(root) as folder:
        for subset, make in SUBSETS.items():
            place = folder / FOLDER / subset
            place.mkdir(parents=True)
            for split, size in (("train", train), ("val", val)):
                clouds, labels = [], []
                for _ in range(size):
                    surfaces = make(draw)
                    cloud, parts = sample_surfaces(surfaces, points, draw)
                    parts += 1
                    parts[_piece(cloud, round(unlabelled * points), draw)] = UNLABELED
                    clouds.append(cloud)
                    labels.append(parts)
                    sources[split].append(f"{subset}-{parameter_digest(surfaces)}")
                name = f"{LISTS[split].split('_')[0]}-00.h5"
                with h5py.File(place / name, "w") as file:
                    file["data"] = np.stack(clouds)
                    file["data_num"] = np.full(size, points, dtype=np.int32)
                    file["label_seg"] = np.stack(labels).astype(np.int32)
                (place / LISTS[split]).write_text(f"{name}\n", encoding="utf-8")
        sizes = {"train": train, "val": val, "points": points, "unlabelled": unlabelled}
        write_record(folder, seed=seed, sizes=sizes, sources=sources)


def _piece(cloud: NDArray[np.float32], size: int, draw: Generator) -> NDArray[np.int64]:
    """Return the indices of the `size` points nearest to a random one, including itself."""
    center = cloud[draw.integers(len(cloud))]
    return np.linalg.norm(cloud - center, axis=1).argsort()[:size]
