"""A small COCO 2017: handwritten digits on photographs, as instances with boxes and masks.

The images are those of `m2pt.datasets.miniature.scenes`. As in COCO, category ids have gaps, masks are
polygons or run-length encodings, and some images have no instances.
"""

import json
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from m2pt.atomic import write_text
from m2pt.datasets.miniature.scenes import SOLID, Placed, Scene, scenes
from m2pt.datasets.miniature.staging import staged, write_record

STREAM = 2
"""Keeps this dataset's random numbers independent of those of the others."""

CATEGORY_IDS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 90)
"""The category id of each digit."""

EMPTY_EVERY = 50
"""Every how many images one has no digits."""


def build(
    root: Path,
    *,
    seed: int,
    train: int = 500,
    val: int = 100,
    image_size: int = 96,
    min_height: int = 20,
    max_height: int = 48,
) -> None:
    """Write `train` and `val` JPEG images of `image_size` pixels with 1-3 digits of the given heights."""
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
            numbers = rng.integers(1, 4, size=count)
            numbers[EMPTY_EVERY - 1 :: EMPTY_EVERY] = 0
            heights = range(min_height, max_height + 1)
            made = list(scenes(rng, split, numbers, side=image_size, heights=heights))
            (folder / f"{split}2017").mkdir()
            for number, scene in enumerate(made, 1):
                Image.fromarray(scene.image).save(folder / f"{split}2017" / file_name(number), quality=92)
            annotations = json.dumps(_instances(made, image_size))
            write_text(folder / "annotations" / f"instances_{split}2017.json", annotations)
            sources[split] = [source for scene in made for source in scene.sources]
        write_record(folder, seed=seed, sizes=sizes, sources=sources)


def file_name(number: int) -> str:
    """Return the name of the file of image `number`."""
    return f"{number:012d}.jpg"


def _instances(made: list[Scene], side: int) -> dict[str, Any]:
    """Return the content of an annotation file for scenes numbered from 1."""
    images = [
        {"id": number, "file_name": file_name(number), "height": side, "width": side}
        for number in range(1, len(made) + 1)
    ]
    digits = [(number, digit) for number, scene in enumerate(made, 1) for digit in scene.digits]
    annotations = [
        {
            "id": place,
            "image_id": number,
            "category_id": CATEGORY_IDS[digit.label],
            "iscrowd": 0,
            **_shape(digit, polygon=place % 2 == 0),
        }
        for place, (number, digit) in enumerate(digits, 1)
    ]
    categories = [
        {"id": category, "name": f"digit {label}", "supercategory": "digit"}
        for label, category in enumerate(CATEGORY_IDS)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def _shape(digit: Placed, *, polygon: bool) -> dict[str, Any]:
    """Return segmentation, box and area; a polygon only for a digit with a single outline, without holes."""
    side = len(digit.coverage)
    code = rle.encode(np.asfortranarray(digit.mask, np.uint8))
    segmentation: Any = {"size": [side, side], "counts": code["counts"].decode()}
    if polygon and len(outlines := _outlines(digit.coverage)) == 1:
        segmentation = [outlines[0].round(2).ravel().tolist()]
        code = rle.merge(rle.frPyObjects(segmentation, side, side))
    return {
        "segmentation": segmentation,
        "bbox": rle.toBbox(code).tolist(),
        "area": float(rle.area(code)),
    }


def _outlines(coverage: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the closed lines (n, 2) of x and y in COCO's pixels where coverage crosses `SOLID`."""
    lines = contourpy.contour_generator(z=np.pad(coverage, 1)).lines(SOLID)
    # The padding shifts by 1, and COCO has the center of a pixel at 0.5.
    return [np.asarray(line, np.float64) - 0.5 for line in lines]
