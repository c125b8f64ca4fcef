"""Part segmentation of shapes of known category: the loss, and mean IoU over shapes and over categories."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.datasets.shapenetpart import PARTS
from m2pt.errors import InputError

Batch = Sequence[Tensor]
Compared = tuple[Tensor, Tensor, Tensor]


class PartSegmentation:
    """ShapeNetPart, as Point-MAE trains and evaluates it (`segmentation/main.py`).

    A batch is points (B, N, 3), categories (B,) and part numbers (B, N); a model maps the first two to logits
    (B, N, P). The loss is over all P parts; an evaluation only chooses among those of the true category.

    Args:
        parts: the part numbers of each category, together 0 to P - 1.
    """

    collate = None

    def __init__(self, parts: Mapping[str, range] = PARTS) -> None:
        owners = [owner for owner, numbers in enumerate(parts.values()) for _ in numbers]
        self.owner = torch.tensor(owners)
        self.members = functional.one_hot(self.owner).T.bool()

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy averaged over all points, and nothing more to log."""
        logits = self.predict(model, batch)
        return functional.cross_entropy(logits.flatten(0, 1), batch[2].flatten()), {}

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits (B, N, P)."""
        points, category, _ = batch
        return model(points, category)

    def measure(self, model: nn.Module, batch: Batch) -> Compared:
        """Compare what the model predicts with the truth, shape by shape; see `compare`."""
        iou, owner, hit = self.compare(self.predict(model, batch), batch[2])
        return iou.cpu(), owner.cpu(), hit.cpu()

    def summarize(self, measured: Sequence[Compared], dataset: Any) -> dict[str, float]:
        """Return, in percent over all shapes:

        - miou_instance: the mean over shapes of the mean IoU of the shape's parts (see `shape_ious`);
        - miou_class: the mean over categories of that mean over the category's shapes;
        - point_accuracy: the share of points whose part is right.

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
            For each shape its mean IoU, the number of its category in `parts`, which its points' parts tell,
            and the share of points that are right; all (B,).
        """
        owner = self.owner.to(labels.device)[labels[:, 0]]
        members = self.members.to(labels.device)[owner]
        predicted = logits.masked_fill(~members.unsqueeze(1), -torch.inf).argmax(2)
        hit = (predicted == labels).double().mean(1)
        return shape_ious(predicted, labels, members), owner, hit


def overlaps(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count points per shape and class.

    Args:
        predicted, labels: classes (B, N) below `num_classes`.
        num_classes: number C of classes.

    Returns:
        int64 (B, 3, C): points that have the class in truth and prediction, in at least one of them, in the
        truth.
    """
    none = labels.new_zeros(len(labels), num_classes)
    ones = torch.ones_like(labels)
    in_prediction = none.scatter_add(1, predicted, ones)
    in_truth = none.scatter_add(1, labels, ones)
    in_both = none.scatter_add(1, labels, (predicted == labels).to(labels.dtype))
    return torch.stack([in_both, in_prediction + in_truth - in_both, in_truth], dim=1)


def shape_ious(predicted: Tensor, labels: Tensor, members: Tensor) -> Tensor:
    """Mean IoU of each shape over the parts of its category; a part in neither counts 1.

    Args:
        predicted, labels: part numbers (B, N).
        members: whether a part belongs to the shape's category, bool (B, P).

    Returns:
        Float64 (B,).
    """
    intersection, union, _ = overlaps(predicted, labels, members.shape[1]).double().unbind(1)
    iou = torch.where(union == 0, 1.0, intersection / union)
    return (iou * members).sum(1) / members.sum(1)
