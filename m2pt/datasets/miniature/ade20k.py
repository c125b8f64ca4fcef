"""A small ADE20K: handwritten digits on photographs.

The images are those of `m2pt.datasets.miniature.scenes`. Class 1 is the background and class 2 + d the digit
d. The soft edges of digits and patches of some images have label 0, which is ignored.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2pt.datasets.miniature.pictures import CLASSES
from m2pt.datasets.miniature.scenes import Scene, scenes
from m2pt.datasets.miniature.staging import staged, write_record

STREAM = 3
"""Keeps this dataset's random numbers independent of those of the others."""

FOLDERS = {"train": "training", "val": "validation"}

BACKGROUND = 1

PATCH_EVERY = 4
"""Every how many images one has a patch without labels."""


def build(
    root: Path,
    *,
    seed: int,
    train: int = 500,
    val: int = 100,
    image_size: int = 96,
    min_height: int = 24,
    max_height: int = 56,
) -> None:
    """Write `train` and `val` pairs of `image_size` pixels with 2-4 digits of the given heights."""
    sizes = {
        "train": train,
        "val": val,
        "image_size": image_size,
        "min_height": min_height,
        "max_height": max_height,
    }
    sources: dict[str, list[str]] = {}
    with staged(root) as folder:
        for split, count in (("train", train), ("val", val)):
            rng = np.random.default_rng([seed, STREAM, len(sources)])
            images, annotations = (folder / kind / FOLDERS[split] for kind in ("images", "annotations"))
            images.mkdir(parents=True)
            annotations.mkdir(parents=True)
            heights = range(min_height, max_height + 1)
            made = list(scenes(rng, split, rng.integers(2, 5, size=count), side=image_size, heights=heights))
            for number, scene in enumerate(made, 1):
                labels = _labels(scene)
                if number % PATCH_EVERY == 0:
                    top, left = rng.integers(image_size * 3 // 4, size=2)
                    labels[top : top + image_size // 4, left : left + image_size // 4] = 0
                stem = f"ADE_{split}_{number:08d}"
                Image.fromarray(scene.image).save(images / f"{stem}.jpg", quality=92)
                Image.fromarray(labels).save(annotations / f"{stem}.png")
            sources[split] = [source for scene in made for source in scene.sources]
        _write_classes(folder)
        write_record(folder, seed=seed, sizes=sizes, sources=sources)


def _labels(scene: Scene) -> NDArray[np.uint8]:
    """Return the label of every pixel (H, W) of a scene."""
    labels = np.full(scene.image.shape[:2], BACKGROUND, np.uint8)
    for digit in scene.digits:
        labels[digit.coverage > 0] = 0
        labels[digit.mask] = BACKGROUND + 1 + digit.label
    return labels


def _write_classes(folder: Path) -> None:
    names = ["background", *(f"digit {label}" for label in range(CLASSES))]
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    lines += [f"{index}\t0\t0\t0\t{int(index == BACKGROUND)}\t{name}" for index, name in enumerate(names, 1)]
    (folder / "objectInfo150.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
