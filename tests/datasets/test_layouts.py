"""Every layout's synthetic batch has the structure, shapes and types of one read from its miniature."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from m2pt.catalog import LAYOUTS
from m2pt.config.architecture import AudioInput
from m2pt.datasets.augmentations import (
    ClipAugmentation,
    ClipCropAugmentation,
    DetectionAugmentation,
    ImageAugmentation,
    PointcloudAugmentation,
    SegmentationAugmentation,
    ShapeAugmentation,
    SpectrogramAugmentation,
    TextAugmentation,
)
from m2pt.datasets.layouts import layout_module
from m2pt.tasks.classification import Classification
from m2pt.tasks.detection import Detection
from m2pt.tasks.semantic_segmentation import SemanticSegmentation


@dataclass(frozen=True)
class Case:
    """A miniature and how a training reads it."""

    classes: int
    sizes: dict[str, Any]
    input: dict[str, Any]
    augmentation: Any
    collate: Callable[[list[Any]], Any] = default_collate
    subset: str | None = None


VIDEO = ({"train": 8, "val": 8, "frames": 8, "size": 32}, {"frames": 4, "stride": 1, "image_size": 16})
REPEATED = ClipAugmentation(samples=2)
CASES = {
    "imagenet": Case(10, {"train": 20, "val": 10}, {"image_size": 24}, ImageAugmentation()),
    "coco": Case(
        10, {"train": 20, "val": 20}, {"image_size": 64}, DetectionAugmentation(), Detection.collate
    ),
    "ade20k": Case(
        11,
        {"train": 12, "val": 12},
        {"image_size": 32},
        SegmentationAugmentation(),
        SemanticSegmentation.collate,
    ),
    "audioset": Case(
        12,
        {"train": 12, "val": 12, "seconds": 0.3},
        AudioInput(frames=30, mel_bins=16).model_dump(),
        SpectrogramAugmentation(),
    ),
    "kinetics": Case(8, *VIDEO, ClipCropAugmentation()),
    "kinetics, repeated": Case(8, *VIDEO, REPEATED, Classification.collate),
    "shapenet55": Case(10, {"train": 10, "val": 10, "points": 64}, {"points": 32}, PointcloudAugmentation()),
    "shapenetpart": Case(50, {"train": 32, "val": 16, "points": 64}, {"points": 32}, ShapeAugmentation()),
    "partnet": Case(
        5, {"train": 8, "val": 8, "points": 64}, {"points": 32}, ShapeAugmentation(), subset="Chair-1"
    ),
    "text": Case(256, {"train": 9000, "val": 2000}, {"length": 40}, TextAugmentation()),
}


def test_every_layout_of_one_modality_has_a_case() -> None:
    single = {name for name, layout in LAYOUTS.items() if layout.modality is not None}
    assert {name.partition(",")[0] for name in CASES} == single


def form(batch: Any) -> Any:
    """Return type and shape of every tensor; the instances of an image differ in number, so they are 0."""
    if isinstance(batch, dict):
        return {key: (value.dtype, (0, *value.shape[1:])) for key, value in batch.items()}
    return (batch.dtype, tuple(batch.shape)) if isinstance(batch, Tensor) else [form(part) for part in batch]


def for_the_loss(batch: Any) -> Any:
    """Leave out what a detector's loss does not read of a target."""
    if isinstance(batch, dict):
        return {key: batch[key] for key in ("boxes", "labels", "masks")}
    return [for_the_loss(part) for part in batch] if isinstance(batch, list | tuple) else batch


@pytest.mark.parametrize("name", CASES)
def test_a_synthetic_batch_looks_like_a_real_one(name: str, built: Callable[..., Any]) -> None:
    case, layout = CASES[name], name.partition(",")[0]
    module = layout_module(layout)
    subset = {"subset": case.subset} if case.subset else {}
    reader = module.Reader(
        built(layout, **case.sizes),
        "train",
        num_classes=case.classes,
        augmentation=case.augmentation,
        **case.input,
        **subset,
    )
    real = for_the_loss(case.collate([reader[index] for index in range(3)]))
    arguments = {"num_classes": case.classes, "input": case.input, "augmentation": case.augmentation}
    batch = module.synthetic_batch(3, **arguments, device=torch.device("cpu"))
    assert form(batch) == form(real)
    on_meta = module.synthetic_batch(3, **arguments, device=torch.device("meta"))
    assert form(on_meta) == form(real), "also where nothing is computed"
