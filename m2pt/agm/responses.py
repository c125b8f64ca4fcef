"""Mono-modal responses: the share of each modality in a model's logits, by Shapley attribution.

Let f(S) be the logits of the joint model with the modalities outside S muted, and M the number of modalities.
The response of modality m is its Shapley value in the game f:

    φ_m = Σ_{S ∌ m}  |S|! (M - |S| - 1)! / M!  ·  [f(S ∪ m) - f(S)]

It is exact for any number of modalities, from the 2^M subsets. The released code of AGM (Li et al., ICCV
2023) leaves out f(∅), which amounts to f(∅) = 0, so that the responses sum to the logits of the full model.
For two modalities φ_a = ½ [f(a, v) - f(v) + f(a)].
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from m2pt.agm.precision import Float64Buffers
from m2pt.agm.settings import check_choice

Subset: TypeAlias = frozenset[str]
EmptySet: TypeAlias = Literal["omitted", "subtracted"]


def subsets_of(modalities: Sequence[str], empty: EmptySet = "omitted") -> list[Subset]:
    """Return the subsets whose logits the responses need, by size: the set of all modalities is the last.

    Args:
        modalities: names, all different.
        empty: "omitted" takes f(∅) as 0, like the released code; "subtracted" lists the empty set first.

    Raises:
        BalancingError: `empty` is neither.
    """
    check_choice("empty", empty, get_args(EmptySet))
    sizes = range(0 if empty == "subtracted" else 1, len(modalities) + 1)
    return [frozenset(chosen) for size in sizes for chosen in combinations(modalities, size)]


def shapley_weights(modalities: Sequence[str], subsets: Sequence[Subset]) -> Tensor:
    """Return W (M, len(subsets)) in float64, with φ_m = Σ_S W[m, S] f(S).

    A subset S of size s has the weight 1 / (M · C(M-1, s-1)) for its members, and minus the weight of the
    next larger size for the others.
    """
    count = len(modalities)

    def weight(modality: str, subset: Subset) -> float:
        size = len(subset)
        if modality in subset:
            return 1 / (count * comb(count - 1, size - 1))
        return -1 / (count * comb(count - 1, size))

    return torch.tensor([[weight(m, s) for s in subsets] for m in modalities], dtype=torch.float64)


def shapley_responses(
    values: Mapping[Subset, Tensor], modalities: Sequence[str], empty: EmptySet = "omitted"
) -> dict[str, Tensor]:
    """Return the response of each modality.

    Args:
        values: f(S) for every subset of `subsets_of(modalities, empty)`, tensors of one shape.
        modalities: names, all different.
        empty: "omitted": the responses sum to f(all). "subtracted": they sum to f(all) - f(∅), the textbook's
            Shapley values.

    Returns:
        φ_m by modality, in the shape of the values.

    Raises:
        KeyError: a subset has no value.
    """
    attribution = ShapleyAttribution(modalities, empty)
    stacked = torch.stack([values[subset] for subset in attribution.subsets])
    return dict(zip(modalities, attribution.to(stacked.device)(stacked), strict=True))


class ShapleyAttribution(Float64Buffers):
    """The weights of all subsets, for stacked logits.

    Args:
        modalities: names, all different.
        empty: see `shapley_responses`.
    """

    weights: Tensor

    def __init__(self, modalities: Sequence[str], empty: EmptySet = "omitted") -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.subsets = subsets_of(modalities, empty)
        self.empty = empty
        self.register_buffer("weights", shapley_weights(modalities, self.subsets), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return the responses (M, ...) of logits (subsets, ...), in the precision of the logits.

        The sums avoid matrix products, which TF32 and autocast would round.
        """
        weights = self.weights.to(values.dtype).view(*self.weights.shape, *[1] * (values.dim() - 1))
        return torch.stack([(row * values).sum(0) for row in weights])

    def modulated(self, coefficients: Tensor) -> Tensor:
        """Return c (subsets,) with Σ_S c_S f(S) = Σ_m κ_m φ_m, to which the textbook's f(∅) is added.

        With κ = 1 that is f(all) in both conventions.

        Args:
            coefficients: κ (M,) in float64.
        """
        combined = (coefficients.unsqueeze(1) * self.weights).sum(0)
        if self.empty == "subtracted":  # f(all) = f(∅) + Σφ: the constant term is not modulated
            combined[0] += 1
        return combined
