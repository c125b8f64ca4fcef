"""Adaptive Gradient Modulation (Li et al., ICCV 2023): joint training that balances the modalities.

    agm = AdaptiveGradientModulation(model, modalities=["audio", "visual"], alpha=1.5)
    for epoch in range(1, epochs + 1):
        for inputs, target in batches:               # inputs: {"audio": ..., "visual": ...}
            loss = agm.loss(inputs, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        agm.after_epoch(epoch)
    logits = agm.model(inputs)

The logits F are the sum of mono-modal responses φ_m (see `responses`). AGM multiplies ∂L/∂φ_m by a
coefficient κ_m (see `modulation`). The released code does that with backward hooks. The same gradients follow
from

    ⟨g, Σ_m κ_m φ_m⟩ = ⟨g, Σ_S c_S f(S)⟩        g = ∂L/∂F, held constant

with one coefficient c_S for each subset of the modalities. No hook is needed, and κ stays on its device. The
passes with muted modalities are a part of the graph: without their gradients only the term of F is left, and
modulation is reduced to one common factor, the mean of κ.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.agm.balancing import BalancingMethod, Validation
from m2pt.agm.checks import BalancingError, Inputs, check_classes
from m2pt.agm.first_batch import FirstBatches, check_first_batch
from m2pt.agm.modulation import PRESETS, AfterWindow, Direction, Modulation, mono_modal_scores
from m2pt.agm.mono_modal import evaluate_responses
from m2pt.agm.muting import Muting
from m2pt.agm.passes import SubsetPasses
from m2pt.agm.precision import full_precision
from m2pt.agm.processes import mean_over_processes
from m2pt.agm.responses import EmptySet, ShapleyAttribution
from m2pt.agm.settings import check_choice, check_flag, check_names, check_number


class AdaptiveGradientModulation(BalancingMethod):
    """A model and its training with adaptive gradient modulation.

    For `DistributedDataParallel` wrap this module, not the model, and call the wrapped module for the loss,
    once a step. Scores are averaged over the processes.

    Args:
        model: called as `model(inputs)` with a dict by modality, returns logits (B, num_classes). With
            `encode(modality, input)` and `fuse(features)` each encoder runs once or twice a step instead of
            once for each subset.
        modalities: names of the modalities, the keys of `inputs`; by default `model.modalities`.
        alpha: strength of the modulation, 0 or more.
        cap: largest τ - r; the coefficients are at most exp(alpha * cap).
        floor: smallest τ - r; None, as released, lets a coefficient underflow to 0.
        probability_floor: smallest probability of the label that counts in a score.
        direction: "released": a modality that does worse than its long-run level gets κ > 1; "opposite": it
            gets κ < 1.
        window: first and last epoch, counted from 1, in which gradients are modulated; None has no end.
        after_window: "reset" trains jointly after the window, without muted passes; "stays" keeps the last
            coefficients, as released.
        empty: "omitted", as released, or "subtracted" for the textbook's Shapley values.
        muting: what replaces the input of a muted modality; zeros by default.
        encoders: the part of the model that encodes each modality; by default `model.encoders`.
        constant_when_muted: modalities whose encoding of a muted input does not depend on the tensors that
            muting keeps, such as lengths. One sample of them is encoded instead of a batch. An encoder may
            say so itself by an attribute `constant_when_muted = True`, which counts with muting by zeros.
        fast_path: False never uses `encode` and `fuse`.

    Raises:
        BalancingError: fewer than two modalities, or a setting is out of range.
    """

    needs_encoders = False

    def __init__(
        self,
        model: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        alpha: float = 1.0,
        cap: float | None = None,
        floor: float | None = None,
        probability_floor: float | None = None,
        direction: Direction = "released",
        window: tuple[int, int | None] = (1, None),
        after_window: AfterWindow = "reset",
        empty: EmptySet = "omitted",
        muting: Muting | None = None,
        encoders: Mapping[str, nn.Module] | None = None,
        constant_when_muted: Collection[str] = (),
        fast_path: bool = True,
    ) -> None:
        super().__init__(model, modalities, encoders=encoders)
        if probability_floor is not None:
            check_number("probability_floor", probability_floor, positive=True)
            if probability_floor >= 1:
                raise BalancingError(f"probability_floor must be below 1, got {probability_floor}")
        if not (muting is None or isinstance(muting, Muting)):
            raise BalancingError(f"muting must be a Muting or None for zeros, got {muting!r}")
        check_flag("fast_path", fast_path)
        constant = check_names("constant_when_muted", constant_when_muted)
        if unknown := [name for name in constant if name not in self.modalities]:
            raise BalancingError(
                f"constant_when_muted has {unknown[0]!r}, which is not among {list(self.modalities)}"
            )
        self.probability_floor = probability_floor
        self.muting = Muting() if muting is None else muting
        self.attribution = ShapleyAttribution(self.modalities, empty)
        self.modulation = Modulation(
            self.modalities,
            alpha,
            cap=cap,
            floor=floor,
            direction=direction,
            window=window,
            after_window=after_window,
            checks=self._checks,
        )
        self._passes = SubsetPasses(
            self.modalities,
            self.attribution.subsets,
            self.muting,
            self._encoders,
            constant,
            fast_path,
        )
        self._first_batches = FirstBatches()

    @classmethod
    def from_preset(
        cls,
        dataset: str,
        model: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        fusion: str = "late",
        **changes: Any,
    ) -> Self:
        """Use the released settings of a dataset.

        Args:
            dataset: a name in `PRESETS`.
            model: the model.
            modalities: names of the modalities.
            fusion: "late" or "early", on which α depends.
            changes: further arguments, which take precedence.

        Raises:
            BalancingError: the dataset or the fusion is unknown, or no α was published for its fusion and
                none is given.
        """
        if not isinstance(dataset, str) or dataset not in PRESETS:
            raise BalancingError(f"there is no preset {dataset!r}, only {', '.join(PRESETS)}")
        check_choice("fusion", fusion, ("late", "early"))
        preset = PRESETS[dataset]
        if fusion not in preset.alpha and "alpha" not in changes:
            raise BalancingError(f"no alpha was published for {dataset} with {fusion} fusion: give alpha=...")
        settings = {"cap": preset.cap, "probability_floor": preset.probability_floor, **changes}
        settings.setdefault("alpha", preset.alpha.get(fusion))
        return cls(model, modalities, **settings)

    @torch.compiler.disable
    def forward(self, inputs: Inputs, target: Tensor) -> Tensor:
        """Return the training loss of a batch: its value is the cross-entropy, its gradient is modulated.

        Each call in training mode is one batch of the running means, also where gradients are accumulated. In
        evaluation mode or without gradients it is the plain cross-entropy, and no state changes.

        Args:
            inputs: the batch by modality: a tensor (B, ...), or a dict of tensors such as values and lengths.
            target: class indices (B,).

        Returns:
            A scalar in float32 or better, to call `.backward()` on.

        Raises:
            BalancingError: the batch does not fit, the model cannot be modulated or is in training mode while
                this is not, or a score is not finite.
        """
        batch = self._check_batch(inputs, target)
        target = target.long()
        if not (self.training and torch.is_grad_enabled()):
            return self._plain_loss(inputs, target)
        if not target.is_meta:
            self._first_batches(
                lambda: check_first_batch(self.model, self._passes, inputs, batch), target.device
            )
        if not self.modulation.needs_passes:
            return self._plain_loss(inputs, target) + self._unused()
        modulates = self.modulation.phase != "before"
        values = self._passes(self.model, inputs, batch, graph=modulates)
        with full_precision(values.device):
            check_classes(target, values.shape[-1], self._checks)
            responses = self.attribution(values.detach())
            scores = mono_modal_scores(responses, target, self.probability_floor)
            coefficients = self.modulation.update(mean_over_processes(scores))
            if not modulates:
                return functional.cross_entropy(values[-1], target) + self._unused()
            return modulated_loss(values, self.attribution.modulated(coefficients), target) + self._unused()

    @torch.no_grad()
    def mono_modal_logits(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return the responses (B, num_classes) in evaluation mode; see `mono_modal.mono_modal_logits`."""
        return evaluate_responses(self.model, self._passes, self.attribution, inputs)

    @property
    def scores(self) -> dict[str, Tensor]:
        """Mono-modal cross-entropies of the last batch whose responses were computed, detached."""
        return dict(zip(self.modalities, self.modulation.scores.clone(), strict=True))

    @property
    def coefficients(self) -> dict[str, Tensor]:
        """Coefficients κ of the last batch, detached; 1 outside the window."""
        return dict(zip(self.modalities, self.modulation.coefficients.clone(), strict=True))

    @property
    def scalars(self) -> dict[str, Tensor]:
        """Scores and coefficients as "score/MODALITY" and "coefficient/MODALITY", to log."""
        named = {"score": self.scores, "coefficient": self.coefficients}
        return {f"{kind}/{name}": value for kind, values in named.items() for name, value in values.items()}

    def after_epoch(self, epoch: int, validation: Validation | None = None) -> None:
        """Move the window; see `window`.

        Args:
            epoch: number of complete epochs, 1 after the first.
            validation: not used.

        Raises:
            BalancingError: a score of this epoch was NaN or infinite, or the epoch is not above the last one.
        """
        super().after_epoch(epoch, validation)
        self.modulation.finish_epoch(epoch)

    def _unused(self) -> Tensor | float:
        """Return 0 with a graph to the learned muted inputs: DDP wants every parameter in each loss."""
        parameters = [each for each in self.muting.parameters() if each.requires_grad]
        return sum((0.0 * each.sum() for each in parameters), 0.0)


def modulated_loss(values: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of the full logits, with the gradient of ⟨g, Σ_S c_S f(S)⟩.

    Args:
        values: f(S) (subsets, B, num_classes) in float32 or float64; the last are the full model's logits F.
        weights: c (subsets,), see `ShapleyAttribution.modulated`.
        target: class indices (B,).
    """
    modulated = (values * weights.to(values.dtype).view(-1, 1, 1)).sum(0)
    logits = values[-1].detach() + (modulated - modulated.detach())
    return functional.cross_entropy(logits, target)
