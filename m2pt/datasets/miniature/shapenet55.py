"""A small ShapeNet-55: parametric objects of ten kinds with random proportions."""

from pathlib import Path

import numpy as np

from m2pt.datasets.miniature.objects import CATEGORIES
from m2pt.datasets.miniature.shapes import parameter_digest, sample_surfaces
from m2pt.datasets.miniature.staging import staged, write_record
from m2pt.datasets.shapenet55 import CLOUDS, LISTS, RELEASE

STREAM = 55
"""Keeps this dataset's random numbers independent of those of the others."""


def build(root: Path, *, seed: int, train: int = 1600, val: int = 320, points: int = 2048) -> None:
    """Write `train` and `val` point clouds of `points` points (officially 8192), equally many of each kind.

    A model is named by its parameters, which are different for all objects.
    """
    draw = np.random.default_rng([seed, STREAM])
    sources: dict[str, list[str]] = {}
    with staged(root) as folder:
        release = folder / RELEASE
        (release / CLOUDS).mkdir(parents=True)
        for (split, relative), size in zip(LISTS.items(), (train, val), strict=True):
            names = []
            for index in range(size):
                synset, make = list(CATEGORIES.items())[index % len(CATEGORIES)]
                parts = make(draw)
                cloud, _ = sample_surfaces(parts, points, draw)
                names.append(f"{synset}-{parameter_digest(parts)}.npy")
                np.save(release / CLOUDS / names[-1], cloud, allow_pickle=False)
            path = release / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            sources[split] = [Path(name).stem for name in names]
        write_record(folder, seed=seed, sizes={"train": train, "val": val, "points": points}, sources=sources)
