"""Text as tokens, as in BERT: (B, L) integers 0 to 255, the bytes of its UTF-8 encoding."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.modalities.positions import PositionTable, sinusoid_1d
from m2pt.modalities.tokenizer import Tokenizer, Tokens, random_split, take

NUM_BYTES = 256
MASK = NUM_BYTES
"""The token that stands for a masked byte."""


class TextTokenizer(Tokenizer):
    """An embedding of bytes and of the mask token, with a fixed sinusoid table and without class token.

    Source: Devlin et al. 2019, section 3, where tokens are word pieces and positions are learned. With fixed
    positions the embedding starts at a standard deviation of dim^-0.5 and is multiplied by dim^0.5, as in
    Vaswani et al. 2017, sections 3.4 and 3.5: at BERT's 0.02 the sinusoids would drown it.
    """

    positions: Tensor

    def __init__(self, dim: int, *, length: int) -> None:
        super().__init__()
        self.num_tokens = length
        self.target_dim = NUM_BYTES
        self.embedding = nn.Embedding(NUM_BYTES + 1, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        # fixed, hence not part of the state: a table of another length is computed, never loaded
        self.register_buffer("positions", sinusoid_1d(dim, length).unsqueeze(0), persistent=False)

    @classmethod
    def build(cls, dim: int, input: Mapping[str, Any], settings: Mapping[str, Any]) -> Self:
        """Build from the input's `length` in bytes; there are no settings."""
        return cls(dim, length=input["length"], **settings)

    @classmethod
    def recognizes(cls, state: Mapping[str, Tensor]) -> bool:
        """Return whether a stored tokenizer is of this modality."""
        return "embedding.weight" in state

    def init_linear(self, weight: Tensor) -> None:
        """Initialize with a truncated normal of standard deviation .02."""
        nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Tensor) -> Tokens:
        """Map (B, L) bytes or `MASK` to one token each."""
        scale = self.embedding.embedding_dim**0.5
        return Tokens(scale * self.embedding(x), self.positions, source=x)

    def draw_mask(self, batch: int, ratio: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw bytes uniformly; max(1, round(ratio * L)) are masked."""
        return random_split(batch, self.num_tokens, max(1, round(ratio * self.num_tokens)), device)

    def target(self, source: Tensor, masked: Tensor) -> Tensor:
        """Return the masked bytes themselves, (B, M) integers."""
        return take(source, masked)

    def decoder_positions(self, dim: int) -> nn.Module:
        """Return the sinusoid table at the decoder's width."""
        return PositionTable(sinusoid_1d(dim, self.num_tokens))

    def reconstruction_loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats of logits (B, M, 256) for bytes (B, M)."""
        return functional.cross_entropy(predicted.flatten(0, 1), target.flatten())
