"""Scores of the modalities, their long-run level, and the coefficients of the gradients.

In a batch with responses φ_m and labels y, over M modalities:

    s_m = mean over samples of -log softmax(φ_m)_y         mono-modal cross-entropy, the score
    r_m = exp(mean of the others' scores - s_m)            ratio: above 1 where m does better than the others
    τ_m = the same of the running means ŝ                  its long-run level
    κ_m = exp(α · min(τ_m - r_m, cap))                     coefficient of ∂L/∂φ_m

ŝ is the arithmetic mean over all batches before this one, each with equal weight; before the first batch it
is 0 and τ = 1. A modality that does worse than its long-run level (r < τ) gets κ > 1: its gradient grows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from m2pt.agm.checks import BalancingError, DeferredChecks
from m2pt.agm.precision import Float64Buffers
from m2pt.agm.settings import (
    check_choice,
    check_epoch,
    check_number,
    check_restored,
    is_integer,
    restoring,
)

Direction: TypeAlias = Literal["released", "opposite"]
AfterWindow: TypeAlias = Literal["reset", "stays"]
Phase: TypeAlias = Literal["before", "active", "after"]


@dataclass(frozen=True)
class Preset:
    """The released settings of a dataset."""

    alpha: Mapping[str, float]
    """The strength by fusion, as the author gave it (issues 3, 5, 8 and 10 of the official repository)."""
    cap: float | None
    """Largest τ - r."""
    probability_floor: float | None
    """Smallest softmax probability in a score."""
    clip_limit: float
    """Limit of `ConditionalClipping`."""


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "AV-MNIST": Preset({"late": 2.5}, cap=None, probability_floor=1e-8, clip_limit=1.0),
        "CREMA-D": Preset({"late": 1.5}, cap=10.0, probability_floor=1e-8, clip_limit=1.0),
        "UR-FUNNY": Preset({"late": 4.0, "early": 6.0}, cap=7.0, probability_floor=None, clip_limit=5.0),
    }
)
"""By dataset. A strength that was not published is missing: give one of your own."""


def mono_modal_scores(responses: Tensor, target: Tensor, probability_floor: float | None = None) -> Tensor:
    """Return the mean cross-entropy (M,) of each modality's response, detached.

    Args:
        responses: φ (M, B, num_classes) in float32 or float64.
        target: class indices (B,).
        probability_floor: smallest probability of the label that counts; None takes it as it is.
    """
    chosen = target.view(1, -1, 1).expand(len(responses), -1, 1)
    log_probabilities = responses.detach().log_softmax(-1).gather(-1, chosen).squeeze(-1)
    if probability_floor is not None:
        log_probabilities = log_probabilities.clamp(min=log(probability_floor))
    return -log_probabilities.mean(-1)


def checked_window(window: Any) -> tuple[int, int | None]:
    """Return the first and last epoch of a window.

    Raises:
        BalancingError: it is not a pair of integers, the second of which may be None, or has no epoch.
    """
    if not isinstance(window, Sequence) or len(window) != 2:
        raise BalancingError(f"window must be a first and a last epoch, such as (1, 20), got {window!r}")
    start, end = window
    if not is_integer(start) or not (end is None or is_integer(end)):
        raise BalancingError(
            f"window must have integers, of which the last may be None for no end, got {window!r}"
        )
    if end is not None and end < start:
        raise BalancingError(f"window must end no earlier than it starts, got {window}")
    if end is not None and end < 1:
        raise BalancingError(f"window has no epoch, since they are counted from 1, got {window}")
    return int(start), None if end is None else int(end)


class Modulation(Float64Buffers):
    """Coefficients κ from scores, with the running means as buffers.

    Args:
        modalities: names of the modalities.
        alpha: strength α, 0 or more; 0 is plain joint training.
        cap: largest τ - r, so that κ <= exp(alpha * cap); None for no limit.
        floor: smallest τ - r, so that κ >= exp(alpha * floor); None, as released, lets κ underflow to 0.
        direction: "released", or "opposite" with both ratios inverted.
        window: first and last epoch, counted from 1, in which gradients are modulated; None has no end.
        after_window: "reset" returns to κ = 1; "stays" keeps the last κ, as released.
        checks: what collects the checks of scores and coefficients, to be polled by the caller.

    Raises:
        BalancingError: a setting is out of range.
    """

    running_scores: Tensor
    scores: Tensor
    coefficients: Tensor
    batches: Tensor

    def __init__(
        self,
        modalities: Sequence[str],
        alpha: float,
        *,
        cap: float | None = None,
        floor: float | None = None,
        direction: Direction = "released",
        window: tuple[int, int | None] = (1, None),
        after_window: AfterWindow = "reset",
        checks: DeferredChecks | None = None,
    ) -> None:
        super().__init__()
        check_number("alpha", alpha)
        if cap is not None:
            check_number("cap", cap, positive=True)
        if floor is not None and not (isinstance(floor, Real) and floor < 0):
            raise BalancingError(f"floor must be a number below 0 or None, got {floor!r}")
        check_choice("direction", direction, get_args(Direction))
        check_choice("after_window", after_window, get_args(AfterWindow))
        start, end = checked_window(window)
        self.modalities = tuple(modalities)
        self.alpha = float(alpha)
        self.cap = cap
        self.floor = floor
        self.direction = direction
        self.window = (start, end)
        self.after_window = after_window
        self.epoch = 1
        self._checks = DeferredChecks() if checks is None else checks
        for name, initial in {"running_scores": 0.0, "scores": 0.0, "coefficients": 1.0}.items():
            self.register_buffer(name, torch.full((len(modalities),), initial, dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @property
    def phase(self) -> Phase:
        """Where the current epoch is: before the window, in it ("active") or after it."""
        start, end = self.window
        if self.epoch < start:
            return "before"
        return "active" if end is None or self.epoch <= end else "after"

    @property
    def needs_passes(self) -> bool:
        """Whether the current epoch needs scores: all do, except after a window that ends with κ = 1."""
        return self.phase != "after" or self.after_window == "stays"

    def finish_epoch(self, epoch: int) -> None:
        """Begin the epoch after `epoch`.

        Raises:
            BalancingError: it is before the current epoch.
        """
        check_epoch(epoch, self.epoch - 1)
        self.epoch = int(epoch) + 1
        if not self.needs_passes:
            self.coefficients.fill_(1.0)

    def update(self, scores: Tensor) -> Tensor:
        """Take in the scores of a batch and return its coefficients (M,) in float64.

        Args:
            scores: (M,), equal in all processes.

        Raises:
            BalancingError: a score or a coefficient is NaN or infinite; on a GPU one or two batches later.
        """
        with torch.no_grad():
            scores = scores.to(self.running_scores.dtype)
            coefficients = self._coefficients(scores) if self.phase == "active" else self.coefficients
            self._check(scores, coefficients)
            self.coefficients.copy_(coefficients)
            self.scores.copy_(scores)
            finite = scores.isfinite().all()  # on a GPU, a batch that is refused later is not in the means
            self.batches += finite
            step = (scores - self.running_scores) / self.batches.clamp(min=1)
            self.running_scores += torch.where(finite, step, 0.0)
            return self.coefficients.clone()

    def _coefficients(self, scores: Tensor) -> Tensor:
        """Return κ of a batch, given the running means before it."""
        if self.alpha == 0:
            return torch.ones_like(scores)
        lead, level = self._lead(scores), self._lead(self.running_scores)
        gap = level.exp() - lead.exp()
        # Where both overflow their difference has the sign and no bound: inf - inf would be NaN
        beyond = level.exp().isinf() & lead.exp().isinf()
        gap = torch.where(beyond, (level - lead) * torch.finfo(gap.dtype).max, gap)
        return (
            (self.alpha * gap.clamp(self.floor, self.cap)).exp()
            if self._is_bounded
            else (self.alpha * gap).exp()
        )

    @property
    def _is_bounded(self) -> bool:
        return self.cap is not None or self.floor is not None

    def _lead(self, scores: Tensor) -> Tensor:
        """Return the mean of the others' scores - own score, negated for the opposite direction."""
        others = (scores.sum() - scores) / (len(scores) - 1)
        return others - scores if self.direction == "released" else scores - others

    def _check(self, scores: Tensor, coefficients: Tensor) -> None:
        """Check that the scores and coefficients of a batch are finite in float32, in which they are used."""
        found = torch.cat([scores, coefficients]).float()
        messages = [
            f"the score of modality {name!r} is NaN or infinite, as its response is: lower the learning "
            "rate, and check the inputs"
            for name in self.modalities
        ] + [
            f"the coefficient of modality {name!r} is NaN or infinite: set cap, or a smaller alpha"
            for name in self.modalities
        ]
        self._checks.require(found.isfinite(), messages)

    def get_extra_state(self) -> Tensor:
        """Return the current epoch and the bytes of the names: the whole state consists of tensors."""
        return torch.tensor([self.epoch, *"\0".join(self.modalities).encode()])

    def set_extra_state(self, state: Tensor) -> None:
        """Continue in the epoch of a state dict, after a check of the names.

        Raises:
            BalancingError: the state is damaged, or of another method or other modalities.
        """
        with restoring("AdaptiveGradientModulation"):
            epoch, *names = state.flatten().tolist()
            if not names:
                raise ValueError("no names of modalities")
            check_restored("AdaptiveGradientModulation", bytes(names).decode().split("\0"), self.modalities)
            self.epoch = epoch
