"""Fusions: from the features of all modalities to logits.

All are built from the width of each modality's features and the number of classes, and called with features
(B, D) by modality. Their order is that of `dims`, whatever the order of the mapping that a call gives. The
last linear layer is `head`; `SumFusion` has one for each modality in `heads`. Layers have torch's own
initialization.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError, listed

PIECES = 2
"""Linear pieces of a maxout unit in the AGM code."""
FIRST_NORM_EPS = 1e-4
"""Epsilon of the maxout MLP's first batch norm in the AGM code, which may have meant the momentum."""


class ConcatFusion(nn.Module):
    """Late fusion: a linear layer with one bias on the concatenated features.

    For two modalities, f(a, v) - f(a) - f(v) + f(∅) = 0 if the encoders' features of a muted modality are
    constant.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        self.modalities = tuple(dims)
        self.head = nn.Linear(sum(dims.values()), num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (B, num_classes)."""
        return self.head(torch.cat([features[name] for name in self.modalities], dim=1))


class SumFusion(nn.Module):
    """Late fusion: a linear layer with a bias for each modality; the logits are summed.

    The functions are those of `ConcatFusion`; the biases are redundant.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        self.modalities = tuple(dims)
        self.heads = nn.ModuleDict({name: nn.Linear(dim, num_classes) for name, dim in dims.items()})

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (B, num_classes)."""
        return torch.stack([self.heads[name](features[name]) for name in self.modalities]).sum(dim=0)


class Maxout(nn.Module):
    """A layer of maxout units: the maximum of `PIECES` linear functions each (Goodfellow et al. 2013)."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, dim * PIECES)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_dim) to (B, dim); the pieces of a unit are neighbors."""
        return self.linear(x).unflatten(-1, (-1, PIECES)).max(dim=-1).values


class MaxoutFusion(nn.Module):
    """Early fusion: two layers of maxout units between batch norms, on the concatenated features.

    Source: the AGM code, whose MLP is MultiBench's `MaxOut_MLP` (`unimodals/common_models.py`).
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        hidden_dims: tuple[int, int] = (2048, 1024),
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.modalities = tuple(dims)
        in_dim, (first, second) = sum(dims.values()), hidden_dims
        self.hidden = nn.Sequential(
            nn.BatchNorm1d(in_dim, eps=FIRST_NORM_EPS),
            Maxout(in_dim, first),
            nn.BatchNorm1d(first),
            nn.Dropout(dropout),
            Maxout(first, second),
            nn.BatchNorm1d(second),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(second, num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (B, num_classes)."""
        return self.head(self.hidden(torch.cat([features[name] for name in self.modalities], dim=1)))


class GatedFusion(nn.Module):
    """Projections of two modalities, one of them through a sigmoid as gate of the other.

    Source: Kiela et al. 2018, "Efficient Large-Scale Multi-Modal Classification"; OGM-GE,
    `models/fusion_modules.py`.

    Args:
        dims: width of the features of the two modalities.
        num_classes: number of classes.
        dim: width of the projections.
        gate: modality that computes the gate; None: the first.

    Raises:
        InputError: there are not two modalities, or `gate` is none of them.
    """

    def __init__(
        self, dims: Mapping[str, int], num_classes: int, *, dim: int = 512, gate: str | None = None
    ) -> None:
        super().__init__()
        self.gate, self.gated = _ordered_pair("gated", "gate", dims, gate)
        self.modalities = tuple(dims)
        self.project = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in dims.items()})
        self.head = nn.Linear(dim, num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (B, num_classes)."""
        gate = self.project[self.gate](features[self.gate]).sigmoid()
        return self.head(gate * self.project[self.gated](features[self.gated]))


class FiLMFusion(nn.Module):
    """Features of one modality, scaled and shifted by linear functions of the other's.

    Source: Perez et al. 2018, "FiLM: Visual Reasoning with a General Conditioning Layer"; OGM-GE,
    `models/fusion_modules.py`.

    Args:
        dims: width of the features of the two modalities.
        num_classes: number of classes.
        condition: modality that computes scale and shift; None: the first.

    Raises:
        InputError: there are not two modalities, or `condition` is none of them.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, condition: str | None = None) -> None:
        super().__init__()
        self.condition, self.modulated = _ordered_pair("film", "condition", dims, condition)
        self.modalities = tuple(dims)
        self.film = nn.Linear(dims[self.condition], 2 * dims[self.modulated])
        self.head = nn.Linear(dims[self.modulated], num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (B, num_classes)."""
        scale, shift = self.film(features[self.condition]).chunk(2, dim=1)
        return self.head(scale * features[self.modulated] + shift)


class CrossAttentionFusion(nn.Module):
    """Multi-head attention between the modalities, each a token; a linear layer on the concatenated tokens.

    Every modality attends to all, itself included: with two modalities and the other one alone, the softmax
    would be over one token, hence constant. A projection and an embedding per modality tell the tokens apart.
    There is a residual connection and a LayerNorm, and no dropout.

    Args:
        dims: width of the features of each modality.
        num_classes: number of classes.
        dim: width of the tokens.
        num_heads: attention heads.

    Raises:
        InputError: `dim` is not a multiple of `num_heads`.
    """

    def __init__(
        self, dims: Mapping[str, int], num_classes: int, *, dim: int = 512, num_heads: int = 8
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise InputError(f"fusion cross_attention: dim {dim} is not a multiple of num_heads {num_heads}")
        self.modalities = tuple(dims)
        self.num_heads = num_heads
        # the bias of each projection is the modality's embedding
        self.project = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in dims.items()})
        self.qkv = nn.Linear(dim, 3 * dim)
        self.mix = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(len(dims) * dim, num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (B, num_classes)."""
        tokens = torch.stack([self.project[name](features[name]) for name in self.modalities], dim=1)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.qkv(tokens).chunk(3, dim=-1)
        )
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.head(self.norm(tokens + self.mix(attended)).flatten(1))


def _ordered_pair(kind: str, option: str, dims: Mapping[str, int], chosen: str | None) -> tuple[str, str]:
    """Return the chosen modality, by default the first, and the other one."""
    if len(dims) != 2:
        raise InputError(
            f"fusion {kind} is for exactly two modalities, not for {listed(dims)}; choose concat, sum, "
            "maxout or cross_attention"
        )
    first, second = dims
    if chosen not in (None, first, second):
        raise InputError(f"fusion {kind}: {option} {chosen!r} is not a modality; choose {first} or {second}")
    return (second, first) if chosen == second else (first, second)
