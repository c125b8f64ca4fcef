"""Masked autoencoding as a task of the training loop."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def reconstruction_loss(model: nn.Module, batch: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Reconstruct the inputs of a batch (inputs, labels); labels are not looked at.

    Args:
        model: a `MaskedAutoencoder`, possibly wrapped.
        batch: what the modality's reader gives.

    Returns:
        The loss and nothing more to log.
    """
    return model(batch[0]), {}
