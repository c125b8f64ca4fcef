"""What every modality provides: tokens with positions, a mask, and what is to be reconstructed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tokens(NamedTuple):
    """A batch as tokens, before any prefix token.

    values: (B, L, D).
    positions: (B, L, D), or (1, L, D) when all samples share them.
    source: what the reconstruction target is cut from; only `Tokenizer.target` reads it.
    centres: (B, L, 3) where tokens have coordinates of their own (point clouds), else None.
    """

    values: Tensor
    positions: Tensor
    source: Tensor
    centres: Tensor | None = None


class Tokenizer(nn.Module, ABC):
    """Turns a batch of one modality into tokens, and defines its masked autoencoding."""

    num_prefix_tokens: int = 0
    num_tokens: int
    target_dim: int
    # Point-MAE adds the positions before every block, the others once
    positions_every_block: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def build(cls, dim: int, input: Mapping[str, Any], settings: Mapping[str, Any]) -> Self:
        """Make a tokenizer of width `dim` from a dataset's input settings and the tokenizer's own.

        Raises:
            InputError: the settings do not fit each other.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tokens:
        """Tokenize a batch as the modality's reader collates it."""

    @abstractmethod
    def draw_mask(self, batch: int, ratio: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw indices of visible (B, K) and masked (B, M) tokens from torch's global generator."""

    @abstractmethod
    def target(self, source: Tensor, masked: Tensor) -> Tensor:
        """What the decoder must predict for the masked tokens (B, M): a tensor (B, M, target_dim)."""

    @abstractmethod
    def decoder_positions(self, dim: int) -> nn.Module:
        """Positions for a decoder of width `dim`: a module from `Tokens.centres` to (1 or B, L, dim)."""

    def prefix(self) -> Tensor | None:
        """The prefix token with its position, (1, num_prefix_tokens, D), or None."""
        return None

    def fix_positions(self) -> None:
        """Exclude the position table from training, where there is one that could be trained."""

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fit a stored state of this tokenizer (its keys, no prefix) to this input size."""
        return dict(state)

    def init_linear(self, weight: Tensor) -> None:
        """Initialise the weight of a linear layer of the body as the modality's method does."""
        nn.init.xavier_uniform_(weight)

    def reconstruction_loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Mean squared error over masked tokens and their values; both (B, M, target_dim)."""
        return functional.mse_loss(predicted, target)
