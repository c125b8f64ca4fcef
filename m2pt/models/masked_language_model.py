"""Masked language modeling: predict masked bytes of a text from all the others."""

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import LayerNorm
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.modalities.text import MASK, NUM_BYTES, TextTokenizer
from m2pt.modalities.tokenizer import take
from m2pt.models.transformer import Encoder, build_encoder

MASKED, RANDOM = 0.8, 0.1
"""Shares of the chosen tokens replaced by the mask token and by a random one; the others are kept."""


def corrupt(tokens: Tensor, chosen: Tensor) -> Tensor:
    """Corrupt the chosen tokens as in BERT, with torch's global generator.

    Args:
        tokens: (B, L) bytes.
        chosen: (B, M) indices, distinct within a row.

    Returns:
        (B, L), with the mask token (80 %), a random byte (10 %) or the byte itself (10 %) at chosen indices.
    """
    draw = torch.rand(chosen.shape, device=chosen.device)
    random = torch.randint(NUM_BYTES, chosen.shape, device=chosen.device)
    replaced = torch.where(draw < MASKED + RANDOM, random, take(tokens, chosen))
    return tokens.scatter(1, chosen, replaced.masked_fill(draw < MASKED, MASK))


class MaskedLanguageModel(nn.Module):
    """BERT's masked language model over bytes, without next sentence prediction.

    Unlike in a masked autoencoder, the encoder processes all tokens, masked ones as changed by `corrupt`, and
    there is no decoder: dense layer, GELU and LayerNorm, then the transposed embedding and a bias.
    Source: Devlin et al. 2019, section 3.1 and appendix A.1; google-research/bert, `run_pretraining.py`.
    """

    def __init__(self, encoder: Encoder, *, mask_ratio: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask_ratio = mask_ratio
        dense = nn.Linear(encoder.embed_dim, encoder.embed_dim)
        encoder.tokenizer.init_linear(dense.weight)
        nn.init.zeros_(dense.bias)
        self.head = nn.Sequential(dense, nn.GELU(), LayerNorm(encoder.embed_dim, eps=encoder.norm_eps))
        self.bias = nn.Parameter(torch.zeros(NUM_BYTES))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats, of the chosen bytes of a batch (B, L)."""
        tokenizer = self.encoder.tokenizer
        _, chosen = tokenizer.draw_mask(len(x), self.mask_ratio, x.device)
        encoded = self.encoder(corrupt(x, chosen))
        return tokenizer.reconstruction_loss(self.predict(take(encoded, chosen)), tokenizer.target(x, chosen))

    def predict(self, encoded: Tensor) -> Tensor:
        """Map encoded tokens (B, M, D) to logits of bytes (B, M, 256)."""
        embedding = self.encoder.get_parameter("tokenizer.embedding.weight")
        return functional.linear(self.head(encoded), embedding[:NUM_BYTES], self.bias)


def build_masked_language_model(
    modality: str,
    *,
    input: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    backbone: Mapping[str, Any],
    mask_ratio: float,
    drop_path: float = 0.0,
) -> MaskedLanguageModel:
    """Build a masked language model.

    Args:
        modality: text.
        input: as for `build_encoder`.
        tokenizer: as for `build_encoder`.
        backbone: as for `build_encoder`.
        mask_ratio: share of the tokens to be predicted; 0.15 in BERT.
        drop_path: stochastic depth rate of the last block; 0 in BERT.

    Raises:
        InputError: another modality, or inconsistent settings.
    """
    encoder = build_encoder(
        modality, input=input, tokenizer=tokenizer, backbone=backbone, drop_path=drop_path
    )
    if not isinstance(encoder.tokenizer, TextTokenizer):
        raise InputError(f"masked language modeling is for text, not for {modality}: choose another task")
    return MaskedLanguageModel(encoder, mask_ratio=mask_ratio)
