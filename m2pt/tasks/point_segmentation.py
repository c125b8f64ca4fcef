"""Semantic segmentation of partly labeled point clouds: loss, PartNet's mean IoU."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.datasets.partnet import UNLABELED
from m2pt.errors import InputError
from m2pt.models.part_segmentation import build_part_segmenter
from m2pt.tasks.part_segmentation import overlaps

Batch = Sequence[Tensor]


class PointSegmentation:
    """One subset of PartNet, evaluated as by its authors (`partnet_seg_exps`, `test_general_seg.py`).

    A batch is points (B, N, 3) and classes (B, N), 0 for unlabeled points. The model maps points to logits
    (B, N, C). Class 0 is never predicted. Unlabeled points count neither in the loss (the authors' networks
    learn them as a class) nor in any metric (the authors' accuracy counts them as correct).
    """

    collate = None

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy over classes 1 to C - 1, averaged over labeled points; 0 without any."""
        logits = self.predict(model, batch)[..., 1:]
        labels = batch[1].flatten()
        total = functional.cross_entropy(
            logits.flatten(0, 1), labels - 1, ignore_index=UNLABELED - 1, reduction="sum"
        )
        return total / (labels != UNLABELED).sum().clamp(min=1), {}

    @classmethod
    def from_recipe(cls, num_classes: int, recipe: Mapping[str, Any]) -> Self:
        """Build the task from a recipe for `num_classes` classes."""
        return cls()

    @staticmethod
    def initial_losses(num_classes: int, recipe: Mapping[str, Any], batch: Batch) -> dict[str, float]:
        """Return the loss of logits 0: ln(C - 1), since class 0 is left out; 0 without a labeled point."""
        return {"loss": math.log(num_classes - 1) if (batch[1] != UNLABELED).any() else 0.0}

    def build_model(self, architecture: Mapping[str, Any], **settings: Any) -> nn.Module:
        """Build the target; see `build_part_segmenter`."""
        return build_part_segmenter(**architecture, **settings)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits (B, N, C)."""
        return model(batch[0])

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """Count the labeled points of each shape and class; see `count`."""
        return self.count(self.predict(model, batch), batch[1]).cpu()

    def summarize(self, measured: Sequence[Tensor], dataset: Any) -> dict[str, float]:
        """Return the metrics over all labeled points in percent.

        Returns:
            miou: IoU of each class, pooled over all shapes, averaged over the classes that occur in labels or
                predictions.
            shape_miou: mean IoU of the classes that occur in a shape's labels or predictions, averaged over
                shapes.
            point_accuracy: share of the points with the correct class.

        Raises:
            InputError: there is no labeled point.
        """
        if not measured or not (total := torch.cat(list(measured)).double()).any():
            raise InputError("there is nothing to evaluate: the validation split has no labeled point")
        intersection, union, truth = total.unbind(1)
        pooled = intersection.sum(0) / union.sum(0)
        return {
            "miou": 100 * pooled.nanmean().item(),
            "shape_miou": 100 * (intersection / union).nanmean(1).nanmean().item(),
            "point_accuracy": 100 * (intersection.sum() / truth.sum()).item(),
        }

    def count(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count the labeled points of each shape and class, given logits (B, N, C) and classes (B, N).

        Returns:
            int64 (B, 3, C - 1): points of the class in both prediction and labels, in either, in the labels.
        """
        predicted = logits[..., 1:].argmax(2) + 1
        predicted = predicted.where(labels != UNLABELED, UNLABELED)
        return overlaps(predicted, labels, logits.shape[2])[..., 1:]
