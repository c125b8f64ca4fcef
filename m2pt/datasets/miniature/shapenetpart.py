"""A small ShapeNetPart: parametric objects of ten of its categories with random proportions.

As in the official dataset categories differ in size, so the means over shapes and over categories differ.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2pt.datasets.miniature.objects import CATEGORIES as OBJECTS
from m2pt.datasets.miniature.shapes import parameter_digest, sample_surfaces
from m2pt.datasets.miniature.staging import staged, write_record
from m2pt.datasets.shapenetpart import CATEGORIES, LISTS, PARTS

STREAM = 50
"""Keeps this dataset's random numbers independent of those of the others."""

TURNS = [*OBJECTS, "02691156", "03001627", "03467517", "03636649", "04379243"]
"""Synsets in the order in which shapes are made; airplane, chair, guitar, lamp and table occur twice."""

ROW = "%.5f %.5f %.5f 0 0 0 %d\n"
"""Normals are written as zeros, since they are not read."""


def build(root: Path, *, seed: int, train: int = 240, val: int = 150, points: int = 512) -> None:
    """Write `train` and `val` shapes of `points` points (officially about 2600), in the order of `TURNS`.

    A shape is named by its parameters, which are different for all shapes. The last eighth of the training
    shapes is in the official validation list, which is part of our training split.
    """
    draw = np.random.default_rng([seed, STREAM])
    names = {synset: make.__name__.capitalize() for synset, make in OBJECTS.items()}
    entries: dict[str, list[str]] = {"train": [], "val": []}
    with staged(root) as folder:
        for synset in OBJECTS:
            (folder / synset).mkdir()
        for split, size in (("train", train), ("val", val)):
            for index in range(size):
                synset = TURNS[index % len(TURNS)]
                surfaces = OBJECTS[synset](draw)
                cloud, parts = sample_surfaces(surfaces, points, draw)
                shape = f"{synset}/{parameter_digest(surfaces)}"
                _write_shape(folder / f"{shape}.txt", cloud, PARTS[names[synset]].start + parts)
                entries[split].append(f"shape_data/{shape}")
        categories = "".join(f"{name}\t{synset}\n" for synset, name in names.items())
        (folder / CATEGORIES).write_text(categories, encoding="utf-8")
        held_out = max(1, train // 8)
        train_list, val_list = LISTS["train"]
        _write_list(folder / train_list, entries["train"][:-held_out])
        _write_list(folder / val_list, entries["train"][-held_out:])
        _write_list(folder / LISTS["val"][0], entries["val"])
        sizes = {"train": train, "val": val, "points": points}
        write_record(folder, seed=seed, sizes=sizes, sources=entries)


def _write_shape(path: Path, cloud: NDArray[np.float32], parts: NDArray[np.int64]) -> None:
    rows = [(*point, part) for point, part in zip(cloud.tolist(), parts.tolist(), strict=True)]
    path.write_text("".join(ROW % row for row in rows), encoding="utf-8")


def _write_list(path: Path, entries: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")
