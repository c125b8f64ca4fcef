"""Semantic segmentation of points with unlabelled ones among them: the loss, and PartNet's mean IoU."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.datasets.partnet import UNLABELLED
from m2pt.errors import InputError
from m2pt.tasks.part_segmentation import overlaps

Batch = Sequence[Tensor]


class PointSegmentation:
    """One subset of PartNet, evaluated as its authors do (`partnet_seg_exps`, `test_general_seg.py`).

    A batch is points (B, N, 3) and classes (B, N), 0 where unlabelled; a model maps the former to logits
    (B, N, C). Class 0 is never predicted, and points that have it count neither in the loss (the authors' own
    networks learn it as a class) nor in any metric (their accuracy counts them as right).
    """

    collate = None

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy among classes 1 to C - 1, averaged over labelled points: 0 without any."""
        logits = self.predict(model, batch)[..., 1:]
        labels = batch[1].flatten()
        total = functional.cross_entropy(
            logits.flatten(0, 1), labels - 1, ignore_index=UNLABELLED - 1, reduction="sum"
        )
        return total / (labels != UNLABELLED).sum().clamp(min=1), {}

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits (B, N, C)."""
        return model(batch[0])

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """Count the labelled points of each shape and class; see `count`."""
        return self.count(self.predict(model, batch), batch[1]).cpu()

    def summarize(self, measured: Sequence[Tensor], dataset: Any) -> dict[str, float]:
        """Return, in percent over all labelled points:

        - miou: the mean over classes of intersection over union, both summed over all shapes; a class in
          neither truth nor prediction is left out;
        - shape_miou: the mean over shapes of the mean IoU of the classes in the shape's truth or prediction;
        - point_accuracy: the share of points whose class is right.

        Raises:
            InputError: there is no labelled point.
        """
        if not measured or not (total := torch.cat(list(measured)).double()).any():
            raise InputError("there is nothing to evaluate: the validation split has no labelled point")
        intersection, union, truth = total.unbind(1)
        pooled = intersection.sum(0) / union.sum(0)
        return {
            "miou": 100 * pooled.nanmean().item(),
            "shape_miou": 100 * (intersection / union).nanmean(1).nanmean().item(),
            "point_accuracy": 100 * (intersection.sum() / truth.sum()).item(),
        }

    def count(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count the labelled points of each shape and class, for logits (B, N, C) and classes (B, N).

        Returns:
            int64 (B, 3, C - 1): points that have the class in truth and prediction, in at least one of them,
            in the truth.
        """
        predicted = logits[..., 1:].argmax(2) + 1
        predicted = predicted.where(labels != UNLABELLED, UNLABELLED)
        return overlaps(predicted, labels, logits.shape[2])[..., 1:]
