"""Supervised pretraining: a classifier is trained, and the encoder below its head is what remains."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from m2pt.models.classifier import Classifier
from m2pt.models.convolutional import ConvNeXtClassifier
from m2pt.models.exchange import part_of, to_exchange
from m2pt.tasks.classification_loss import ClassificationLoss
from m2pt.tasks.multilabel_classification import MultilabelClassification

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]


def supervised_loss(modality: str, num_classes: int, mix: Mapping[str, float] | None = None) -> Loss:
    """Return the loss of a modality's labels: sounds have several each, everything else has one.

    Args:
        modality: of the dataset.
        num_classes: its number of classes.
        mix: the recipe's `mix` (see `ClassificationLoss`); a recipe for sounds has none.
    """
    if modality == "audio":
        return MultilabelClassification(num_classes).loss
    return ClassificationLoss(num_classes, **(mix or {}))


def encoder_state(model: Classifier | ConvNeXtClassifier) -> dict[str, Tensor]:
    """Return what an encoder's file holds of a trained classifier: its `pretrained_parts`, no head.

    A classifier that averages its tokens has no `norm`, and so neither has the file: such an encoder is an
    auxiliary, which needs the blocks, or a start for another classifier.
    """
    exchanged = to_exchange(model.state_dict())
    return {key: value for key, value in exchanged.items() if part_of(key) in model.pretrained_parts}
