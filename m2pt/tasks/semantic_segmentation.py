"""Semantic segmentation: loss, mean IoU as in mmsegmentation."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.models.settings import IGNORED, SMALL_STD
from m2pt.models.transformer import Encoder
from m2pt.models.upernet import build_upernet

Batch = tuple[list[Tensor], list[Tensor]]


class SemanticSegmentation:
    """UperNet on ADE20K."""

    @staticmethod
    def collate(samples: Iterable[tuple[Tensor, Tensor]]) -> Batch:
        """Collect images (3, h, w) and label maps (H, W) in lists: in evaluation they differ in size."""
        images, labels = zip(*samples, strict=True)
        return list(images), list(labels)

    @staticmethod
    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the model's losses for images and label maps of one size, and each of them."""
        images, labels = batch
        losses: dict[str, Tensor] = model(torch.stack(images), torch.stack(labels))
        return torch.stack(list(losses.values())).sum(), losses

    @staticmethod
    def predict(model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits of all pixels of all images, flattened."""
        return torch.cat([model(image[None]).flatten() for image in batch[0]])

    @classmethod
    def from_recipe(cls, num_classes: int, recipe: Mapping[str, Any]) -> Self:
        """Return the task; the recipe has no settings for it."""
        return cls()

    @staticmethod
    def initial_losses(num_classes: int, recipe: Mapping[str, Any], batch: Batch) -> dict[str, float]:
        """Return the losses of logits 0: ln C times the mean weight of a pixel, which is 0 if it is ignored.

        The auxiliary head's comes on top with its own weight. Classifiers of large initial weights have other
        logits.
        """
        settings, labels = recipe["model"], torch.stack(batch[1]).cpu()
        if settings["classifier_std"] > SMALL_STD:
            return {}
        known = labels[labels != IGNORED]
        weights = torch.tensor(settings["class_weights"] or [1.0] * num_classes)
        decoder = math.log(num_classes) * weights[known].sum().item() / labels.numel()
        return {"loss": (1 + settings["auxiliary_weight"]) * decoder}

    @staticmethod
    def build_model(encoder: Encoder, *, input: Mapping[str, Any], **settings: Any) -> nn.Module:
        """Build the model around an encoder; see `build_upernet`."""
        return build_upernet(encoder, image_size=input["image_size"], **settings)

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the confusion matrix of all labeled pixels.

        Logits are resized to the label map, which keeps its original size when the image is scaled.
        """
        counts = []
        for image, label in zip(*batch, strict=True):
            logits = model(image[None])
            logits = functional.interpolate(logits, label.shape, mode="bilinear", align_corners=False)
            counts.append(confusion_matrix(logits.argmax(1)[0].cpu(), label.cpu(), logits.shape[1]))
        return torch.stack(counts).sum(0)

    def summarize(self, measured: Sequence[Tensor], dataset: Any) -> dict[str, float]:
        """Return `miou` and `pixel_accuracy` in percent over all labeled pixels.

        Raises:
            InputError: there are no images, or none of their pixels is labeled.
        """
        if not measured:
            raise InputError("there is nothing to evaluate: the validation split is empty")
        confusion = torch.stack(list(measured)).sum(0)
        if not confusion.any():
            raise InputError("there is nothing to evaluate: no pixel of the validation split is labeled")
        return scores(confusion)


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of each (true class, predicted class), without those labeled 255.

    Args:
        predicted: integer classes, any shape.
        labels: integer classes or 255, the same shape.
        num_classes: number C of classes.

    Returns:
        int64 (C, C), true classes as rows.
    """
    known = labels != IGNORED
    pairs = labels[known] * num_classes + predicted[known]
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def scores(confusion: Tensor) -> dict[str, float]:
    """Return mean IoU and pixel accuracy in percent, given a confusion matrix with the true classes as rows.

    A class that occurs in neither labels nor predictions is left out of the mean; one that is only predicted
    has an IoU of 0 (mmsegmentation's `IoUMetric`).
    """
    hits = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - hits
    return {
        "miou": 100 * (hits / union).nanmean().item(),
        "pixel_accuracy": 100 * (hits.sum() / confusion.sum()).item(),
    }
