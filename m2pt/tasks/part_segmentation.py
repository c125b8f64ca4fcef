"""Part segmentation of shapes of known category: loss, mean IoU over shapes and over categories."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.datasets.shapenetpart import PARTS
from m2pt.errors import InputError
from m2pt.models.part_segmentation import build_part_segmenter

Batch = Sequence[Tensor]
Compared = tuple[Tensor, Tensor, Tensor]


class PartSegmentation:
    """ShapeNetPart as in Point-MAE (`segmentation/main.py`).

    A batch is points (B, N, 3), categories (B,) and part numbers (B, N). The model maps points and categories
    to logits (B, N, P). The loss is over all P parts; evaluation only chooses among the parts of the true
    category.

    Args:
        parts: part numbers of each category, together 0 to P - 1.
    """

    collate = None

    def __init__(self, parts: Mapping[str, range] = PARTS) -> None:
        owners = [owner for owner, numbers in enumerate(parts.values()) for _ in numbers]
        self.owner = torch.tensor(owners)
        self.members = functional.one_hot(self.owner).T.bool()

    @classmethod
    def from_recipe(cls, num_classes: int, recipe: Mapping[str, Any]) -> Self:
        """Build the task from a recipe."""
        return cls()

    @staticmethod
    def initial_losses(num_classes: int, recipe: Mapping[str, Any], batch: Batch) -> dict[str, float]:
        """Return the loss of logits 0: ln P, over the parts of all categories."""
        return {"loss": math.log(num_classes)}

    def build_model(self, architecture: Mapping[str, Any], **settings: Any) -> nn.Module:
        """Build the target; see `build_part_segmenter`."""
        return build_part_segmenter(**architecture, num_categories=len(self.members), **settings)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy averaged over all points, and nothing more to log."""
        logits = self.predict(model, batch)
        return functional.cross_entropy(logits.flatten(0, 1), batch[2].flatten()), {}

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits (B, N, P)."""
        points, category, _ = batch
        return model(points, category)

    def measure(self, model: nn.Module, batch: Batch) -> Compared:
        """Compare predictions and labels of each shape; see `compare`."""
        iou, owner, hit = self.compare(self.predict(model, batch), batch[2])
        return iou.cpu(), owner.cpu(), hit.cpu()

    def summarize(self, measured: Sequence[Compared], dataset: Any) -> dict[str, float]:
        """Return the metrics over all shapes in percent.

        Returns:
            miou_instance: mean IoU of a shape's parts (see `shape_ious`), averaged over shapes.
            miou_class: the same averaged over the shapes of each category, then over categories.
            point_accuracy: share of the points with the correct part.

        Raises:
            InputError: there are no shapes.
        """
        if not measured:
            raise InputError("there is nothing to evaluate: the validation split is empty")
        iou, owner, hit = (torch.cat(values) for values in zip(*measured, strict=True))
        by_category = [iou[owner == category].mean() for category in owner.unique()]
        return {
            "miou_class": 100 * torch.stack(by_category).mean().item(),
            "miou_instance": 100 * iou.mean().item(),
            "point_accuracy": 100 * hit.mean().item(),
        }

    def compare(self, logits: Tensor, labels: Tensor) -> Compared:
        """Compare logits (B, N, P) with part numbers (B, N).

        Returns:
            For each shape, (B,) each: mean IoU; index in `parts` of its category, inferred from the labels;
            share of correct points.
        """
        owner = self.owner.to(labels.device)[labels[:, 0]]
        members = self.members.to(labels.device)[owner]
        predicted = logits.masked_fill(~members.unsqueeze(1), -torch.inf).argmax(2)
        hit = (predicted == labels).double().mean(1)
        return shape_ious(predicted, labels, members), owner, hit


def overlaps(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count the points of intersection and union for each shape and class.

    Args:
        predicted: classes (B, N) below `num_classes`.
        labels: true classes (B, N).
        num_classes: number C of classes.

    Returns:
        int64 (B, 3, C): points of the class in both prediction and labels, in either, in the labels.
    """
    none = labels.new_zeros(len(labels), num_classes)
    ones = torch.ones_like(labels)
    in_prediction = none.scatter_add(1, predicted, ones)
    in_truth = none.scatter_add(1, labels, ones)
    in_both = none.scatter_add(1, labels, (predicted == labels).to(labels.dtype))
    return torch.stack([in_both, in_prediction + in_truth - in_both, in_truth], dim=1)


def shape_ious(predicted: Tensor, labels: Tensor, members: Tensor) -> Tensor:
    """Return the mean IoU of each shape over the parts of its category, float64 (B,).

    A part that occurs in neither prediction nor labels has an IoU of 1.

    Args:
        predicted: part numbers (B, N).
        labels: true part numbers (B, N).
        members: bool (B, P), True for the parts of the shape's category.
    """
    intersection, union, _ = overlaps(predicted, labels, members.shape[1]).double().unbind(1)
    iou = torch.where(union == 0, 1.0, intersection / union)
    return (iou * members).sum(1) / members.sum(1)
