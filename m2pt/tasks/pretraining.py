"""The loss of masked pretraining, and the encoder of a supervised one."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from m2pt.models.classifier import Classifier
from m2pt.models.convnext import ConvNeXtClassifier
from m2pt.models.exchange import part_of, to_exchange
from m2pt.models.masked_autoencoder import MaskedAutoencoder
from m2pt.models.masked_language_model import MaskedLanguageModel

SMALLEST_TARGET = 192
"""Numbers of a target, such as 8 x 8 x 3 pixels, from which the mean square of a masked autoencoder's first
predictions differs by less than about a tenth between random weights."""


def reconstruction_loss(model: nn.Module, batch: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of reconstructing the inputs of a batch (inputs, labels) and nothing more to log.

    Args:
        model: a `MaskedAutoencoder` or `MaskedLanguageModel`, possibly wrapped.
        batch: a batch of the modality's reader; its labels are ignored.
    """
    return model(batch[0]), {}


def initial_losses(model: nn.Module) -> dict[str, float]:
    """Return the loss that masked pretraining starts at, as `StatesInitialLosses`, where that is known.

    A masked language model's logits are products of normalized features, of length dim^0.5, and embeddings
    whose numbers start with a standard deviation of dim^-0.5: normal with variance 1, which adds half of that
    to the loss of logits 0. A masked autoencoder's targets have mean square (n - 1) / n if n numbers are
    standardized together; its predictions, of normalized tokens by random weights that know nothing of the
    targets, add ||W||² / target_dim, up to chance if the targets are small. The loss of point clouds, a
    Chamfer distance, has no such form.
    """
    if isinstance(model, MaskedLanguageModel):
        return {"loss": math.log(len(model.bias)) + 0.5}
    if isinstance(model, MaskedAutoencoder) and (size := model.encoder.tokenizer.standardized_dim):
        weight = model.decoder.pred.weight.detach()
        if len(weight) < SMALLEST_TARGET:
            return {}
        return {"loss": (size - 1) / size + float(weight.square().sum()) / len(weight)}
    return {}


def classifier_encoder(model: Classifier | ConvNeXtClassifier) -> dict[str, Tensor]:
    """Return the encoder of a trained classifier: its `pretrained_parts`, without head.

    A classifier that averages its tokens has no `norm`, so its file has none either. Such an encoder can
    serve as an auxiliary, which needs blocks only, or initialize another classifier.
    """
    exchanged = to_exchange(model.state_dict())
    return {key: value for key, value in exchanged.items() if part_of(key) in model.pretrained_parts}
