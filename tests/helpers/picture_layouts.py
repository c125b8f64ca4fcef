"""The invariant of the image layouts: what the full check accepts is read, and perfect answers score 100."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from torch.nn import functional

from m2pt.datasets import coco
from m2pt.datasets.augmentations import (
    DetectionAugmentation,
    ImageAugmentation,
    SegmentationAugmentation,
)
from m2pt.datasets.layouts import layout_module
from m2pt.tasks.classification import accuracy, count_correct
from m2pt.tasks.detection import METRICS, Detection, quiet
from m2pt.tasks.semantic_segmentation import SemanticSegmentation, confusion_matrix

SIDE = 24
AUGMENTATION: dict[str, Any] = {
    "imagenet": ImageAugmentation(scale=(0.5, 1.0), reprob=0.5),
    "coco": DetectionAugmentation(scale=(0.5, 2.0)),
    "ade20k": SegmentationAugmentation(scale=(0.5, 2.0), cat_max_ratio=0.75, color_jitter=1.0),
}


def verdict(layout: str, root: Path, num_classes: int) -> list[str]:
    """Return the problems of the full check; if it finds none, assert that the invariant holds."""
    module = layout_module(layout)
    problems = module.check(root, num_classes=num_classes, full=True)
    assert all(
        str(root) in problem and "\n" not in problem and problem.endswith(".") for problem in problems
    ), problems
    if not problems:
        for split in ("train", "val"):
            for augmentation in (AUGMENTATION[layout], None):
                reader = module.Reader(
                    root, split, num_classes=num_classes, image_size=SIDE, augmentation=augmentation
                )
                samples = [reader[index] for index in range(len(reader))]
                assert samples and all(image.isfinite().all() for image, _ in samples)
        scores = PERFECT[layout](root, num_classes, reader, samples)
        assert scores == pytest.approx(dict.fromkeys(scores, 100))
    return problems


def _imagenet(root: Path, num_classes: int, reader: Any, samples: list[Any]) -> dict[str, float]:
    labels = torch.tensor([label for _, label in samples])
    return accuracy([count_correct(functional.one_hot(labels, num_classes).float(), labels)], num_classes)


def _ade20k(root: Path, num_classes: int, reader: Any, samples: list[Any]) -> dict[str, float]:
    """Score the labels as Pillow has them against those of the reader, which has the images by name."""
    names = sorted(path for path in (root / "annotations" / "validation").iterdir() if path.name[0] != ".")
    measured = []
    for path, (_, labels) in zip(names, samples, strict=True):
        with Image.open(path) as image:
            stored = torch.from_numpy(np.array(image)).long() - 1
        assert torch.equal(stored.where(stored >= 0, torch.tensor(255)), labels)
        measured.append(confusion_matrix(stored.clamp(min=0), labels, num_classes))
    return SemanticSegmentation().summarize(measured, reader)


def _coco(root: Path, num_classes: int, reader: Any, samples: list[Any]) -> dict[str, float]:
    """Score the boxes and masks that stand in the file, masks as pycocotools decodes them."""
    document = json.loads(coco.annotation_file(root, "val").read_bytes())
    with quiet():
        geometry = COCO()
        geometry.imgs = {image["id"]: image for image in document["images"]}
    labels = {number: label for label, number in enumerate(reader.category_ids, 1)}
    perfect = [
        {
            "image_id": entry["image_id"],
            "label": labels[entry["category_id"]],
            "bbox": entry["bbox"],
            "segmentation": rle.encode(np.asfortranarray(geometry.annToMask(entry))),
            "score": 0.9,
        }
        for entry in document["annotations"]
        if not entry.get("iscrowd")
    ]
    scores = Detection().summarize([perfect], reader)
    assert tuple(scores) == METRICS
    return scores


PERFECT: dict[str, Callable[[Path, int, Any, list[Any]], dict[str, float]]] = {
    "imagenet": _imagenet,
    "ade20k": _ade20k,
    "coco": _coco,
}
