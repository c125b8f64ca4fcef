"""OGM and OGM-GE: slow down the encoder of the modality that is ahead (Peng et al., CVPR 2022).

arXiv 2203.15332; official code GeWu-Lab/OGM-GE_CVPR2022.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from m2pt.agm.balancing import BalancingMethod
from m2pt.agm.calls import has_fast_path
from m2pt.agm.checks import BalancingError, Inputs
from m2pt.agm.encoders import check_shaped
from m2pt.agm.feature_responses import forward_with_responses
from m2pt.agm.first_batch import FirstBatches
from m2pt.agm.forward_check import FORWARD_ALONE, check_forward
from m2pt.agm.processes import sum_over_processes
from m2pt.agm.responses import ShapleyAttribution
from m2pt.agm.settings import check_choice, check_flag, check_integer, check_number, restoring

NOISE_FLOOR = 1e-8
"""Added to the standard deviation of the noise in the official code."""


class OGM(BalancingMethod):
    """On-the-fly gradient modulation, with or without generalization enhancement (GE).

    In each step s_m = Σᵢ softmax(logits_m)ᵢ[yᵢ] is the probability that the modality alone gives to the right
    classes. With the ratio ρ_a = s_a / s_v, the gradients of the encoder of `a` are multiplied by

        k_a = 1 − tanh(α ρ_a) if ρ_a > 1, else 1        (eq. 10)

    GE then adds Gaussian noise to the gradients of both encoders. Its standard deviation is that of the
    elements of the same gradient before modulation (official code, main.py).

    The mono-modal logits are those of `forward_with_responses`: W_m h_m + b / M as in the paper for a
    linear layer on concatenated features, the Shapley responses for any other fusion. In several processes
    and under gradient accumulation, s_m is the sum over all samples of the step.

    More than two modalities are not in the paper. Its authors suggest averaging the pairwise ratios
    (GeWu-Lab/OGM-GE_CVPR2022, issue 16, "we have not conducted related experiments"): here
    ρ_m = mean over j ≠ m of s_m / s_j, so more than one modality can be slowed down.

    Args:
        model: see `BalancingMethod`.
        modalities: see `BalancingMethod`.
        encoders: see `BalancingMethod`.
        alpha: α; 0 changes no gradient unless there is noise.
        enhance: True adds the noise (OGM-GE).
        parameters: "conv" acts on weights of four dimensions, as the official code does; "all" on all
            parameters of an encoder, for encoders that mostly have others, such as transformers (AGM's
            authors do so for CREMA-D).
        first_epoch: the first epoch that is modulated, counted from 1.
        last_epoch: the last one; None is the last of the training.
        seed: of the noise, which is a function of the seed and the step only: equal in all processes, and
            the same again after a restart.
        fast_path: False never uses `encode` and `fuse`: inputs are muted instead of features.

    Raises:
        BalancingError: as `BalancingMethod`; a negative `alpha`; an impossible window; "conv" and an encoder
            of which weights of four dimensions are less than half, so that the method would do little; a lazy
            module that has not seen a batch yet.
    """

    needs_before_step = True

    def __init__(
        self,
        model: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        alpha: float,
        enhance: bool = False,
        parameters: Literal["conv", "all"] = "conv",
        first_epoch: int = 1,
        last_epoch: int | None = None,
        seed: int = 0,
        encoders: Mapping[str, nn.Module] | None = None,
        fast_path: bool = True,
    ) -> None:
        super().__init__(model, modalities, encoders=encoders)
        check_number("OGM: alpha", alpha)
        check_choice("OGM: parameters", parameters, ("conv", "all"))
        check_flag("OGM: enhance", enhance)
        check_integer("OGM: seed", seed)
        check_flag("OGM: fast_path", fast_path)
        check_integer("OGM: first_epoch", first_epoch, 1)
        if last_epoch is not None:
            check_integer("OGM: last_epoch, unless it is None,", last_epoch, first_epoch)
        self.alpha = alpha
        self.enhance = enhance
        self.first_epoch = first_epoch
        self.last_epoch = last_epoch
        self.seed = seed
        self.fast_path = fast_path
        self._first_batches = FirstBatches()
        check_shaped(model)
        self._modulated: dict[str, list[nn.Parameter]] = {}
        for modality in self.modalities:
            every = list(self.encoder_parameters(modality))
            found = [each for each in every if parameters == "all" or each.ndim == 4]
            share = sum(each.numel() for each in found) / sum(each.numel() for each in every)
            if share < 0.5:
                raise BalancingError(
                    f"OGM: {share:.0%} of the parameters of the encoder of {modality!r} are convolution "
                    "kernels of four dimensions, so most of it would be trained without modulation: use "
                    "parameters='all'"
                )
            self._modulated[modality] = found
        self.attribution = ShapleyAttribution(self.modalities)
        self._step = 0
        self._sums: Tensor | None = None
        """Σ over the samples of the step so far, of this process (M,). No buffer: DDP would broadcast it."""
        self._report(torch.ones(len(self.modalities)), torch.ones(len(self.modalities)))

    def forward(self, inputs: Inputs, target: Tensor) -> Tensor:
        """Return the cross-entropy of a batch, and keep the scores of its modalities for `before_step`."""
        batch = self._check_batch(inputs, target)
        if not (self.training and torch.is_grad_enabled()):
            return self._plain_loss(inputs, target)
        if self.fast_path and has_fast_path(self.model) and not target.is_meta:
            self._first_batches(
                lambda: check_forward(self.model, self.modalities, inputs, batch, FORWARD_ALONE),
                target.device,
            )
        logits, responses = forward_with_responses(
            self.model, self.attribution, inputs, batch, fast=self.fast_path
        )
        loss = self._cross_entropy(logits, target)
        chosen = target.long().view(1, -1, 1).expand(len(responses), -1, 1)
        sums = responses.softmax(dim=-1).gather(-1, chosen).sum((1, 2))
        self._sums = sums if self._sums is None else self._sums + sums
        return loss

    @torch.no_grad()
    def before_step(self) -> None:
        """Multiply the gradients of each encoder by its coefficient and add the noise.

        Raises:
            BalancingError: there was no forward pass in training mode since the last step.
        """
        if self._sums is None:
            raise BalancingError("OGM.before_step() needs a forward pass in training mode first")
        super().before_step()
        ratios = pairwise_ratios(sum_over_processes(self._sums))
        self._sums = None
        self._step += 1
        coefficients = torch.ones_like(ratios)
        epoch = self._last_epoch + 1
        if self.first_epoch <= epoch and (self.last_epoch is None or epoch <= self.last_epoch):
            coefficients = torch.where(ratios > 1, 1 - torch.tanh(self.alpha * ratios), coefficients)
            generators: dict[torch.device, torch.Generator] = {}
            for modality, coefficient in zip(self.modalities, coefficients, strict=True):
                for parameter in self._modulated[modality]:
                    if parameter.grad is not None:
                        self._modulate(parameter.grad, coefficient, generators)
        self._report(ratios, coefficients)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the epoch and the step, for `state_dict`."""
        return {**self._common_state(), "step": self._step}

    def set_extra_state(self, state: Any) -> None:
        """Restore the epoch and the step.

        Raises:
            BalancingError: the state is damaged, or of another method or other modalities.
        """
        with restoring("OGM"):
            self._restore_common(state)
            self._step = int(state["step"])

    def _modulate(
        self, gradient: Tensor, coefficient: Tensor, generators: dict[torch.device, torch.Generator]
    ) -> None:
        """Change one gradient in place.

        Raises:
            BalancingError: noise is to be added to a sparse gradient.
        """
        if not self.enhance:
            gradient.mul_(coefficient)
            return
        if gradient.layout != torch.strided:
            raise BalancingError(
                "OGM-GE adds noise to dense gradients only: use embeddings with sparse=False"
            )
        device = gradient.device
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(_mixed(self.seed, self._step))
        # A single element has no standard deviation: the official code would make it NaN
        deviation = gradient.std(correction=min(1, gradient.numel() - 1)) + NOISE_FLOOR
        noise = torch.randn(gradient.shape, generator=generators[device], device=device, dtype=gradient.dtype)
        gradient.mul_(coefficient).add_(noise.mul_(deviation))

    def _report(self, ratios: Tensor, coefficients: Tensor) -> None:
        """Set the scalars to log."""
        for modality, ratio, coefficient in zip(self.modalities, ratios, coefficients, strict=True):
            self._scalars[f"ratio/{modality}"] = ratio
            self._scalars[f"coefficient/{modality}"] = coefficient


def pairwise_ratios(scores: Tensor) -> Tensor:
    """Return ρ_m = mean over j ≠ m of s_m / s_j for scores (M,); of two s_a / s_v and s_v / s_a.

    They are finite: scores of 0 count as the smallest normal number.
    """
    limits = torch.finfo(scores.dtype)
    scores = scores.clamp(min=limits.tiny)
    ratios = scores.unsqueeze(1) / scores.unsqueeze(0)
    return (ratios.fill_diagonal_(0).sum(dim=1) / (len(scores) - 1)).clamp(max=limits.max)


def _mixed(seed: int, step: int) -> int:
    """Return a seed for one step; different seeds do not repeat each other's steps."""
    return (seed * 1_000_003 + step) * 2_654_435_761 % 2**63
