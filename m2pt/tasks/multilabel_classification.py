"""Multi-label classification: binary cross-entropy, mean average precision, and top-1 accuracy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.models.bodies import build_body_classifier


class MultilabelClassification:
    """Any number of labels per sample; a batch is inputs and multi-hot labels (B, `num_classes`).

    In training, labels may be soft, such as those of mixed clips (see `m2pt.datasets.audioset`).
    """

    collate = None

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def loss(self, model: nn.Module, batch: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the binary cross-entropy averaged over clips and classes, and nothing more to log.

        Raises:
            InputError: the labels are not multi-hot.
        """
        inputs, labels = batch
        if labels.shape[1:] != (self.num_classes,):
            raise InputError(
                f"multi-label classification needs multi-hot labels (batch, {self.num_classes}), but this "
                f"dataset has labels of shape {tuple(labels.shape)}: choose a dataset with several "
                "labels per sample"
            )
        return functional.binary_cross_entropy_with_logits(model(inputs), labels), {}

    @classmethod
    def from_recipe(cls, num_classes: int, recipe: Mapping[str, Any]) -> Self:
        """Build the task from a recipe for `num_classes` classes."""
        return cls(num_classes)

    @staticmethod
    def initial_losses(num_classes: int, recipe: Mapping[str, Any], batch: Any) -> dict[str, float]:
        """Return the loss of logits 0: ln 2, whatever the labels."""
        return {"loss": math.log(2)}

    def build_model(self, architecture: Mapping[str, Any], **settings: Any) -> nn.Module:
        """Build the target; see `build_body_classifier`."""
        return build_body_classifier(architecture, **settings)

    def predict(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Return logits (B, num_classes)."""
        return model(batch[0])

    def measure(self, model: nn.Module, batch: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return logits and labels, since mean average precision ranks all clips at once."""
        return self.predict(model, batch).cpu(), batch[1].cpu()

    def summarize(self, measured: Sequence[tuple[Tensor, Tensor]], dataset: Any) -> dict[str, float]:
        """Return the metrics over all clips in percent.

        Returns:
            map: AudioSet's metric, see `mean_average_precision`.
            top1: share of the clips for which the class with the highest score is one of the labels.

        Raises:
            InputError: there are no clips.
        """
        if not measured:
            raise InputError("there is nothing to evaluate: the validation split is empty")
        all_scores, all_labels = (torch.cat(values) for values in zip(*measured, strict=True))
        return {
            "map": 100 * mean_average_precision(all_scores, all_labels),
            "top1": 100 * all_labels.gather(1, all_scores.argmax(dim=1, keepdim=True)).mean().item(),
        }


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Return the average precision averaged over classes without weights, scikit-learn's "macro" average.

    Average precision is the sum of precision times the increase in recall, from the highest score to the
    lowest. Clips with equal scores are counted together, so their order has no effect. A class without a
    positive clip counts 0 and scikit-learn warns (`m2pt data check` rejects lists with such a class).

    Args:
        scores: (N, C).
        labels: (N, C), zeros and ones.
    """
    from sklearn.metrics import (
        average_precision_score,
    )  # takes a second to import, and training does not need it

    return float(average_precision_score(labels.int().numpy(), scores.float().numpy(), average="macro"))
