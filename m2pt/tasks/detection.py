"""Object detection and instance segmentation: the training loss, and COCO's average precision."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import clip_boxes_to_image

from m2pt.datasets.coco_records import read_records, run_length_code
from m2pt.datasets.faults import refuse

Targets = list[dict[str, Tensor]]
METRICS = ("ap_box", "ap50_box", "ap_mask", "ap50_mask")
"""COCO's AP and AP50 of boxes and of masks."""


class Detection:
    """Mask R-CNN on COCO as a target task."""

    @staticmethod
    def collate(samples: Iterable[tuple[Tensor, dict[str, Tensor]]]) -> tuple[list[Tensor], Targets]:
        """Keep images and targets as lists: both differ in size from sample to sample."""
        images, targets = zip(*samples, strict=True)
        return list(images), list(targets)

    @staticmethod
    def loss(model: nn.Module, batch: tuple[list[Tensor], Targets]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of Mask R-CNN's five losses for images and torchvision targets, and each of them."""
        images, targets = batch
        losses: dict[str, Tensor] = model(images, targets)
        return torch.stack(list(losses.values())).sum(), losses

    @staticmethod
    def predict(model: nn.Module, batch: tuple[list[Tensor], Targets]) -> Tensor:
        """Objectness logits and box offsets of all anchors, (B, any): what the detections are made from."""
        detector: Any = model
        images, _ = detector.transform(batch[0])
        features = detector.backbone(images.tensors)
        outputs = [level for part in detector.rpn.head(list(features.values())) for level in part]
        return torch.cat([output.flatten(1) for output in outputs], dim=1)

    def measure(self, model: nn.Module, batch: tuple[list[Tensor], Targets]) -> list[dict[str, Any]]:
        """Return all detections of a Mask R-CNN of `build_mask_rcnn`; see `detections`."""
        images, targets = batch
        pairs = zip(model(images), targets, strict=True)
        return [found for prediction, target in pairs for found in detections(prediction, target)]

    def summarize(self, measured: Sequence[list[dict[str, Any]]], dataset: Any) -> dict[str, float]:
        """Return the `METRICS` in percent, against the dataset's own annotations.

        Args:
            measured: the detections of each batch.
            dataset: the COCO reader; `annotation_file` is the ground truth, `category_ids` names its labels.

        Raises:
            InputError: the ground truth is not sound.
        """
        truth = ground_truth(dataset.annotation_file)
        results = [
            {"category_id": dataset.category_ids[found["label"] - 1], **found}
            for batch in measured
            for found in batch
        ]
        return average_precision(truth, results)


def detections(prediction: dict[str, Tensor], target: dict[str, Tensor]) -> Iterator[dict[str, Any]]:
    """Yield what was found in one image as COCO's result format has it, but `label` from 1 for the category.

    Coordinates are those of the original image.

    Args:
        prediction: boxes (N, 4) as x1, y1, x2, y2 in pixels of the view, labels (N,) from 1, scores (N,),
            masks (N, 1, M, M): probabilities to be stretched over the boxes.
        target: image_id (); original_size and view_size (2,), height and width before and after resizing.
    """
    target = {name: value.cpu() for name, value in target.items()}
    height, width = target["original_size"].tolist()
    stretch = target["original_size"] / target["view_size"]
    boxes = clip_boxes_to_image(prediction["boxes"].cpu() * stretch.flip(0).repeat(2), (height, width))
    masks = prediction["masks"].cpu()
    labels, scores = prediction["labels"].tolist(), prediction["scores"].tolist()
    for place, (label, score) in enumerate(zip(labels, scores, strict=True)):
        one = slice(place, place + 1)  # masks of the original size one by one: it may be large
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
    """Return the annotations of a file as pycocotools indexes them, made from what the reader reads.

    pycocotools takes the ids of annotations for keys, 0 for none, and needs `area` and `iscrowd`: so ids are
    counted from 1, areas are those of the masks, and `iscrowd` is 0 where it is missing. AP over all sizes is
    that of the file itself wherever pycocotools can read it.

    Raises:
        InputError: the file is not sound.
    """
    records = read_records(annotation_file, evaluated=True)
    refuse(records.faults)
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
    """COCO's AP (mean over IoU .50:.05:.95) and AP50 of boxes and masks, in percent.

    Args:
        truth: the ground truth; all of its images count, predicted or not.
        results: detections with `bbox` and RLE `segmentation`; they are left as they are.
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
    """Swallow what pycocotools prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
