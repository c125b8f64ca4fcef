"""A masked transformer for padded sequences of feature vectors, such as UR-FUNNY's."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from m2pt.errors import InputError


class SequenceEncoder(nn.Module):
    """A projection without bias, then post-norm transformer layers without positions.

    Source: the AGM code for UR-FUNNY, but for the mask. There no padding is masked, so that the features of a
    sample depend on the longest sequence of its batch; here they do not depend on the padding at all.

    With `output="first"` the last layer is computed for the first step alone, since nothing else of it is
    read: the result is the same.

    Args:
        in_dim: size of the vectors.
        dim: width of the transformer.
        depth: number of layers.
        num_heads: attention heads.
        hidden_dim: hidden units of the MLP of each layer.
        dropout: rate in attention, MLP and residual branches.
        output: features of the "first" step, or the "mean" over the steps of each sequence.

    Raises:
        InputError: `dim` is not a multiple of `num_heads`, or the output is unknown.
    """

    constant_when_muted = True
    """Sequences of zeros have the same features whatever their length: all their steps are equal."""

    def __init__(
        self,
        in_dim: int,
        *,
        dim: int = 768,
        depth: int = 8,
        num_heads: int = 4,
        hidden_dim: int = 2048,
        dropout: float = 0.1,
        output: Literal["first", "mean"] = "first",
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise InputError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        if output not in ("first", "mean"):
            raise InputError(f"output {output!r} is unknown: choose first or mean")
        self.in_dim = in_dim
        self.embed_dim = dim
        self.output = output
        self.project = nn.Linear(in_dim, dim, bias=False)
        # Time comes first: with `batch_first` torch takes another path in evaluation, with other rounding.
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, num_heads, hidden_dim, dropout) for _ in range(depth)
        )

    def forward(self, sequences: Mapping[str, Tensor]) -> Tensor:
        """Return features (B, dim).

        Args:
            sequences: `values` (B, T, in_dim) and `lengths` (B,), integers from 1 to T. What `values` holds
                beyond a sequence's length, even NaN, has no influence.

        Raises:
            InputError: an entry is missing, has another shape or type, or a length is out of range.
        """
        values, lengths = self._checked(sequences)
        padding = torch.arange(values.shape[1], device=values.device) >= lengths.unsqueeze(1)
        x = self.project(values.masked_fill(padding.unsqueeze(-1), 0)).transpose(0, 1)
        *layers, last = self.layers
        for layer in layers:
            x = layer(x, src_key_padding_mask=padding)
        if self.output == "first":
            return _first_step(last, x, padding)
        x = last(x, src_key_padding_mask=padding)
        kept = x.masked_fill(padding.T.unsqueeze(-1), 0)
        return kept.sum(dim=0) / lengths.unsqueeze(1).to(x.dtype)

    def _checked(self, sequences: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        if not isinstance(sequences, Mapping) or not {"values", "lengths"} <= set(sequences):
            raise InputError(
                "a sequence encoder needs a mapping of `values` (B, T, D) and `lengths` (B,); give both"
            )
        values, lengths = sequences["values"], sequences["lengths"]
        if values.dim() != 3 or values.shape[2] != self.in_dim:
            raise InputError(
                f"`values` has shape {tuple(values.shape)}; give padded sequences (B, T, {self.in_dim})"
            )
        if lengths.shape != values.shape[:1] or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise InputError(
                f"`lengths` has shape {tuple(lengths.shape)} and type {lengths.dtype}; give one integer for "
                f"each of the {len(values)} sequences"
            )
        wrong = (lengths < 1) | (lengths > values.shape[1])
        if not wrong.is_meta and wrong.any():
            index = int(wrong.nonzero()[0])
            raise InputError(
                f"sequence {index} of the batch has length {int(lengths[index])}; it must be from 1 to "
                f"{values.shape[1]}, the padded length: leave empty sequences out of the dataset"
            )
        return values, lengths


def _first_step(layer: Any, x: Tensor, padding: Tensor) -> Tensor:
    """Return what a post-norm `nn.TransformerEncoderLayer` gives for the first step of (T, B, D): (B, D)."""
    first = x[:1]
    attended, _ = layer.self_attn(first, x, x, key_padding_mask=padding, need_weights=False)
    first = layer.norm1(first + layer.dropout1(attended))
    hidden = layer.linear2(layer.dropout(layer.activation(layer.linear1(first))))
    return layer.norm2(first + layer.dropout2(hidden)).squeeze(0)
