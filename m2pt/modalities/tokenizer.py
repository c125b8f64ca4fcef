"""The interface of a modality: tokens with positions, a mask over them, and a reconstruction target."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.modalities.settings import NORM_EPS


class Tokens(NamedTuple):
    """A batch of tokens, without prefix tokens.

    Attributes:
        values: (B, L, D).
        positions: (B, L, D), or (1, L, D) if all samples share them.
        source: input that the reconstruction target is computed from; only `Tokenizer.target` reads it.
        centers: (B, L, 3) if tokens have coordinates (point clouds), else None.
    """

    values: Tensor
    positions: Tensor
    source: Tensor
    centers: Tensor | None = None


class Tokenizer(nn.Module, ABC):
    """Turns a batch of one modality into tokens, and defines its masked autoencoding."""

    num_prefix_tokens: int = 0
    num_tokens: int
    target_dim: int
    standardized_dim: int | None = None
    """Numbers of a target that are standardized together, to mean 0 and unbiased variance 1; None: none."""
    positions_every_block: ClassVar[bool] = False
    """Point-MAE adds the positions before every block; the other methods add them once."""
    norm_eps: ClassVar[float] = NORM_EPS
    """Epsilon of the LayerNorms of the modality's method, unless the config gives another."""
    decoder_embedding: ClassVar[Literal["linear", "linear_without_bias", "none"]] = "linear"
    """Layer from encoder to decoder. VideoMAE's has no bias; Point-MAE has none and uses one width."""
    decays_mask_token: ClassVar[bool] = True
    """Whether weight decay acts on the decoder's mask token: in MAE and AudioMAE."""
    decoder_kinds: tuple[str, ...] = ("global",)
    """Kinds of decoder to choose from; "windowed" needs `grid`, the rows and columns of tokens."""

    @classmethod
    @abstractmethod
    def build(cls, dim: int, input: Mapping[str, Any], settings: Mapping[str, Any]) -> Self:
        """Build a tokenizer.

        Args:
            dim: width of the tokens.
            input: input settings of the dataset.
            settings: the tokenizer's own settings.

        Raises:
            InputError: the settings are inconsistent.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tokens:
        """Tokenize a batch as the modality's reader collates it."""

    @abstractmethod
    def draw_mask(self, batch: int, ratio: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw indices of visible (B, K) and masked (B, M) tokens from torch's global generator."""

    @abstractmethod
    def target(self, source: Tensor, masked: Tensor) -> Tensor:
        """Return the decoder's target for the masked tokens (B, M): (B, M, target_dim)."""

    @abstractmethod
    def decoder_positions(self, dim: int) -> nn.Module:
        """Build a decoder's positions: a module from `Tokens.centers` to (1 or B, L, dim)."""

    def prefix(self) -> Tensor | None:
        """Return the prefix tokens with their positions added, (1, num_prefix_tokens, D), or None."""
        return None

    def fix_positions(self) -> None:
        """Freeze the position table, if it is trainable."""

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Adapt a stored state of this tokenizer (its own keys, no prefix) to this input size."""
        return dict(state)

    @classmethod
    def recognizes(cls, state: Mapping[str, Tensor]) -> bool:
        """Return whether a stored tokenizer (its own keys, no prefix) is of this modality, of any size."""
        return True

    def init_linear(self, weight: Tensor) -> None:
        """Initialize the weight of a linear layer of the transformer as the modality's method does."""
        nn.init.xavier_uniform_(weight)

    def reconstruction_loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error over masked tokens and their values; both (B, M, target_dim)."""
        return functional.mse_loss(predicted, target)


def random_split(batch: int, length: int, masked: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Split `length` tokens of every sample at random, with torch's global generator.

    Returns:
        Indices of the visible (batch, length - masked) and of the masked (batch, masked) tokens.

    Raises:
        InputError: no token would be visible, or none masked.
    """
    if not 0 < masked < length:
        raise InputError(
            f"mask_ratio masks {masked} of {length} tokens, but at least one must be visible and one masked: "
            "choose another mask_ratio or a smaller patch size"
        )
    order = torch.rand(batch, length, device=device).argsort(dim=1)
    return order[:, masked:], order[:, :masked]


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Select tokens of each sample by index.

    Args:
        tokens: (B, L, ...), or (1, L, ...) if all samples share them.
        index: (B, M) integers below L.

    Returns:
        (B, M, ...).
    """
    batch, length = tokens.shape[:2]
    flat = index if batch == 1 else index + torch.arange(batch, device=index.device).unsqueeze(1) * length
    # index_select copies whole rows, which is faster than an element-wise gather
    return tokens.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, index.shape)
