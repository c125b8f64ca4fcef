"""Object detection and instance segmentation: loss, COCO's average precision."""

import contextlib
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import clip_boxes_to_image

from m2pt.datasets.checks import raise_problems
from m2pt.datasets.coco_records import read_records, run_length_code
from m2pt.models.mask_rcnn import build_mask_rcnn
from m2pt.models.settings import SMALL_STD
from m2pt.models.transformer import Encoder

Targets = list[dict[str, Tensor]]
METRICS = ("ap_box", "ap50_box", "ap_mask", "ap50_mask")
"""COCO's AP and AP50 of boxes and of masks."""


class Detection:
    """Mask R-CNN on COCO."""

    @staticmethod
    def collate(samples: Iterable[tuple[Tensor, dict[str, Tensor]]]) -> tuple[list[Tensor], Targets]:
        """Collect images and targets in lists: both differ in size from sample to sample."""
        images, targets = zip(*samples, strict=True)
        return list(images), list(targets)

    @staticmethod
    def loss(model: nn.Module, batch: tuple[list[Tensor], Targets]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of Mask R-CNN's five losses for images and torchvision targets, and each of them."""
        images, targets = batch
        losses: dict[str, Tensor] = model(images, targets)
        return torch.stack(list(losses.values())).sum(), losses

    @staticmethod
    def predict(model: nn.Module, batch: tuple[list[Tensor], Targets]) -> Tensor:
        """Return objectness logits and box offsets of all anchors, (B, any), before detection."""
        detector: Any = model
        images, _ = detector.transform(batch[0])
        features = detector.backbone(images.tensors)
        outputs = [level for part in detector.rpn.head(list(features.values())) for level in part]
        return torch.cat([output.flatten(1) for output in outputs], dim=1)

    @classmethod
    def from_recipe(cls, num_classes: int, recipe: Mapping[str, Any]) -> Self:
        """Return the task; the recipe has no settings for it."""
        return cls()

    @staticmethod
    def initial_losses(num_classes: int, recipe: Mapping[str, Any], batch: Any) -> dict[str, float]:
        """Return the losses of logits 0: ln 2 for objectness and masks, ln(C + 1) with the background.

        Those of boxes depend on the anchors and proposals, so the sum does too. Predictors of large initial
        weights have other logits.
        """
        of_classes, _, of_masks = recipe["model"]["predictor_stds"]
        known = {
            "loss_classifier": (math.log(num_classes + 1), of_classes),
            "loss_mask": (math.log(2), of_masks),
            "loss_objectness": (math.log(2), 0.0),
        }
        return {name: loss for name, (loss, std) in known.items() if std <= SMALL_STD}

    @staticmethod
    def build_model(encoder: Encoder, *, input: Mapping[str, Any], **settings: Any) -> nn.Module:
        """Build the model around an encoder; see `build_mask_rcnn`."""
        return build_mask_rcnn(encoder, image_size=input["image_size"], **settings)

    def measure(self, model: nn.Module, batch: tuple[list[Tensor], Targets]) -> list[dict[str, Any]]:
        """Return all detections of a model of `build_mask_rcnn`; see `detections`."""
        images, targets = batch
        pairs = zip(model(images), targets, strict=True)
        return [found for prediction, target in pairs for found in detections(prediction, target)]

    def summarize(self, measured: Sequence[list[dict[str, Any]]], dataset: Any) -> dict[str, float]:
        """Return the `METRICS` in percent, computed against the dataset's annotations.

        Args:
            measured: detections of each batch.
            dataset: the COCO reader; `annotation_file` is the ground truth, `category_ids` names its labels.

        Raises:
            InputError: the ground truth is invalid.
        """
        truth = ground_truth(dataset.annotation_file)
        results = [
            {"category_id": dataset.category_ids[found["label"] - 1], **found}
            for batch in measured
            for found in batch
        ]
        return average_precision(truth, results)


def detections(prediction: dict[str, Tensor], target: dict[str, Tensor]) -> Iterator[dict[str, Any]]:
    """Yield the detections of one image in COCO's result format, with `label` (from 1) as category.

    Coordinates refer to the original image.

    Args:
        prediction: boxes (N, 4) as x1, y1, x2, y2 in pixels of the resized image, labels (N,) from 1, scores
            (N,), masks (N, 1, M, M) as probabilities to be stretched over the boxes.
        target: image_id (); original_size and view_size (2,), height and width before and after resizing.
    """
    target = {name: value.cpu() for name, value in target.items()}
    height, width = target["original_size"].tolist()
    stretch = target["original_size"] / target["view_size"]
    boxes = clip_boxes_to_image(prediction["boxes"].cpu() * stretch.flip(0).repeat(2), (height, width))
    masks = prediction["masks"].cpu()
    labels, scores = prediction["labels"].tolist(), prediction["scores"].tolist()
    for place, (label, score) in enumerate(zip(labels, scores, strict=True)):
        one = slice(place, place + 1)  # paste masks one by one: the original image may be large
        mask = paste_masks_in_image(masks[one], boxes[one], (height, width))[0, 0] >= 0.5
        x1, y1, x2, y2 = boxes[place].tolist()
        yield {
            "image_id": int(target["image_id"]),
            "label": label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": rle.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8)),
            "score": score,
        }


def ground_truth(annotation_file: Path) -> COCO:
    """Return the annotations of a file as a pycocotools index, built from the reader's records.

    pycocotools uses the ids of annotations as keys, treats id 0 as "none", and needs `area` and `iscrowd`.
    Ids are therefore renumbered from 1, areas computed from the masks, and a missing `iscrowd` is 0. AP over
    all sizes equals that of the file itself whenever pycocotools can read it.

    Raises:
        InputError: the file is invalid.
    """
    records = read_records(annotation_file, evaluated=True)
    raise_problems(records.problems)
    category_ids = list(records.categories)
    annotations: list[dict[str, Any]] = []
    for picture in records.pictures:
        for instance in picture.instances:
            code = run_length_code(instance.segmentation, picture.height, picture.width)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture.id,
                    "category_id": category_ids[instance.label - 1],
                    "bbox": instance.box,
                    "segmentation": code,
                    "area": float(rle.area(code)),
                    "iscrowd": instance.crowd,
                }
            )
    truth = COCO()
    truth.dataset = {
        "images": [{"id": p.id, "height": p.height, "width": p.width} for p in records.pictures],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in records.categories.items()],
    }
    with quiet():
        truth.createIndex()
    return truth


def average_precision(truth: COCO, results: list[dict[str, Any]]) -> dict[str, float]:
    """Return COCO's AP (mean over IoU .50:.05:.95) and AP50 of boxes and masks, in percent.

    Args:
        truth: ground truth; all of its images count, with detections or without.
        results: detections with `bbox` and RLE `segmentation`; not modified.
    """
    if not results:
        return dict.fromkeys(METRICS, 0.0)
    values = []
    with quiet():
        detections = truth.loadRes([dict(result) for result in results])
        for kind in ("bbox", "segm"):
            evaluation = COCOeval(truth, detections, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            values += [100 * float(value) for value in evaluation.stats[:2]]
    return dict(zip(METRICS, values, strict=True))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the output of pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
