"""Which tokens a masked autoencoder sees, and picking tokens by index."""

import torch
from torch import Tensor

from m2pt.errors import InputError


def random_split(batch: int, length: int, masked: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Split `length` tokens of every sample at random, with torch's global generator.

    Returns:
        Indices of the visible (batch, length - masked) and of the masked (batch, masked) tokens.

    Raises:
        InputError: nothing would be visible or nothing masked.
    """
    if not 0 < masked < length:
        raise InputError(
            f"mask_ratio masks {masked} of {length} tokens; at least one must be visible and one masked: "
            "choose another mask_ratio or a smaller patch size"
        )
    order = torch.rand(batch, length, device=device).argsort(dim=1)
    return order[:, masked:], order[:, :masked]


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens per sample.

    Args:
        tokens: (B, L, ...), or (1, L, ...) when all samples share them.
        index: (B, M) integers below L.

    Returns:
        (B, M, ...).
    """
    batch, length = tokens.shape[:2]
    flat = index if batch == 1 else index + torch.arange(batch, device=index.device).unsqueeze(1) * length
    # whole rows are copied here, which is faster than an element-wise gather
    return tokens.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, index.shape)
