"""Joint models, and AGM in its naive form: a pass of the whole model per subset, and gradient hooks."""

import math
from collections.abc import Mapping
from itertools import combinations, permutations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, CLASSES = 6, 4


class Maxout(nn.Module):
    """Early fusion: BatchNorm, the larger of two linear maps, BatchNorm, dropout, then a linear head."""

    def __init__(self, inputs: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(inputs), nn.BatchNorm1d(8)
        self.maps = nn.ModuleList(nn.Linear(inputs, 8) for _ in range(2))
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(8, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        x = self.first(features)
        return self.head(self.dropout(self.second(torch.maximum(self.maps[0](x), self.maps[1](x)))))


class Joint(nn.Module):
    """A joint model with the fast path; every encoder maps (B, WIDTH) to (B, 5)."""

    def __init__(
        self,
        modalities: tuple[str, ...],
        *,
        early: bool = False,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.modalities = modalities

        def encoder() -> nn.Module:
            norm = nn.BatchNorm1d(7) if batch_norm else nn.LayerNorm(7)
            return nn.Sequential(
                nn.Linear(WIDTH, 7), norm, nn.Tanh(), nn.Dropout(dropout), nn.Linear(7, 5), nn.Tanh()
            )

        self.encoders = nn.ModuleDict({name: encoder() for name in modalities})
        self.calls: dict[str, int] = dict.fromkeys(modalities, 0)
        width = 5 * len(modalities)
        self.fusion: nn.Module = Maxout(width, dropout) if early else nn.Linear(width, CLASSES)

    def encode(self, modality: str, value: Tensor) -> Tensor:
        self.calls[modality] += len(value)
        return self.encoders[modality](value)

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.fusion(torch.cat([features[name] for name in self.modalities], 1))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.fuse({name: self.encode(name, inputs[name]) for name in self.modalities})


class BlackBox(nn.Module):
    """A model that can only be called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.inner(inputs)


def batch(modalities: tuple[str, ...], size: int = 6, dtype: torch.dtype = torch.float64, seed: int = 0):
    """Return random inputs and labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(size, WIDTH, generator=generator, dtype=dtype) for name in modalities}
    return inputs, torch.randint(CLASSES, (size,), generator=generator)


def brute_force_responses(
    values: Mapping[frozenset, Tensor], modalities: tuple[str, ...], empty_is_zero: bool
) -> dict[str, Tensor]:
    """Return the mean marginal contribution of each modality over all orders in which they may join."""
    full = values[frozenset(modalities)]
    of = {**values, frozenset(): torch.zeros_like(full)} if empty_is_zero else values
    responses = {name: torch.zeros_like(full) for name in modalities}
    orders = list(permutations(modalities))
    for order in orders:
        for position, name in enumerate(order):
            before = frozenset(order[:position])
            responses[name] = responses[name] + (of[before | {name}] - of[before]) / len(orders)
    return responses


class HookedAGM:
    """The reference, with running means as Python numbers, and the released order of passes and modes."""

    def __init__(
        self,
        model: nn.Module,
        modalities: tuple[str, ...],
        alpha: float,
        cap: float | None = None,
        *,
        empty_is_zero: bool = True,
    ) -> None:
        self.model, self.modalities, self.alpha, self.cap = model, modalities, alpha, cap
        self.empty_is_zero = empty_is_zero
        self.running = dict.fromkeys(modalities, 0.0)
        self.steps = 0
        self.kappa: dict[str, float] = {}

    def values(self, inputs: Mapping[str, Tensor]) -> dict[frozenset, Tensor]:
        """Return the logits of all subsets: the full pass first, then the muted ones in evaluation mode."""
        values = {frozenset(self.modalities): self.model(inputs)}
        self.model.eval()
        for size in range(0 if not self.empty_is_zero else 1, len(self.modalities)):
            for subset in combinations(self.modalities, size):
                muted = {
                    name: value if name in subset else torch.zeros_like(value)
                    for name, value in inputs.items()
                }
                values[frozenset(subset)] = self.model(muted)
        self.model.train()
        return values

    def coefficient(self, scores: Mapping[str, float], name: str) -> float:
        """Return κ of one modality."""

        def relative(of: Mapping[str, float]) -> float:
            others = [of[each] for each in self.modalities if each != name]
            return math.exp(sum(others) / len(others) - of[name])

        gap = relative(self.running) - relative(scores)
        return math.exp(self.alpha * (gap if self.cap is None else min(gap, self.cap)))

    def loss(self, inputs: Mapping[str, Tensor], target: Tensor) -> Tensor:
        """Return the cross-entropy with a hook on each response."""
        values = self.values(inputs)
        responses = brute_force_responses(values, self.modalities, self.empty_is_zero)
        scores = {name: functional.cross_entropy(each, target).item() for name, each in responses.items()}
        self.kappa = {name: self.coefficient(scores, name) for name in self.modalities}
        self.steps += 1
        for name in self.modalities:
            self.running[name] = (
                self.running[name] * (self.steps - 1) / self.steps + scores[name] / self.steps
            )
        logits = torch.zeros(()) if self.empty_is_zero else values[frozenset()]
        for name, response in responses.items():
            kappa = self.kappa[name]
            if not response.requires_grad:
                raise AssertionError(f"no graph to {name}")
            response.register_hook(lambda gradient, kappa=kappa: kappa * gradient)
            logits = logits + response
        return functional.cross_entropy(logits, target)
