"""Gradient Blending: a weighted loss of the joint and the mono-modal classifiers (Wang et al., CVPR 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.agm.balancing import BalancingMethod, Validation
from m2pt.agm.calls import encode, fuse, has_fast_path
from m2pt.agm.checks import BalancingError, Inputs
from m2pt.agm.first_batch import FirstBatches
from m2pt.agm.forward_check import check_forward
from m2pt.agm.precision import Float64Buffers
from m2pt.agm.processes import sum_over_processes
from m2pt.agm.settings import check_integer, check_module, check_named, check_number, restoring

JOINT = "joint"
"""The name of the joint classifier among those of the modalities."""

LEAST_OVERFITTING = 1e-3
"""|O| below this counts as this, in nats: a chance value near 0 would take all the weight. Ours."""


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropies of one classifier in nats, at one moment of a training."""

    training: float
    validation: float


class GradientBlending(Float64Buffers, BalancingMethod):
    """The loss is Σ_k w_k L_k over a linear classifier on each encoder's features and the joint classifier.

    The weights are large for classifiers that generalize and do not overfit, w_k ∝ G_k / O_k², and add up to
    1; see `blending_weights`. Only the joint classifier, `method.model`, predicts.

    What we know: the paper (arXiv 1905.12681) blends losses by an overfitting-to-generalization ratio.
    Two public ports of it (MultiBench, `training_structures/gradient_blend.py`, and one for survival data)
    have one classifier for each modality and one for all, weights that are estimated anew every few epochs,
    and the ratio G_k / O_k². G and O are differences between two checkpoints in one of them and an option,
    off by default, in MultiBench. We have compared this file neither with the text of the paper nor with the
    authors' code, which is in Caffe2.

    **Offline** (`weights` given): constant weights. Compute them with `blending_weights` from separate
    trainings, one of each modality alone and one of all together.

    **Online** (no `weights`): they are equal in the first super-epoch and estimated anew after each. Here the
    method is simplified. MultiBench trains copies of each modality's model and of the joint one, from the
    weights at the start of each super-epoch, to estimate the weights for that super-epoch. Here nothing is
    trained in addition: G_k and O_k are those of the classifiers in the blended training itself, over the
    super-epoch that has ended, for use in the next. A training loss is the mean over the batches of an epoch,
    in training mode and while the weights change. A classifier whose validation loss has risen gets the
    weight 0 (the formula's would be negative; MultiBench takes the absolute value); if all have risen, the
    weights stay as they are.

    Args:
        model: a model with `encode` and `fuse`.
        modalities: see `BalancingMethod`.
        heads: for each modality a module from the encoder's features to logits (B, num_classes), such as
            `nn.Linear(512, num_classes)`; they become parts of the method and are trained with it.
        weights: of each modality and "joint", 0 or more; scaled to add up to 1.
        super_epoch: epochs between two estimates, 1 or more.

    Raises:
        BalancingError: as `BalancingMethod`; a model without `encode` and `fuse`; heads or weights that do
            not fit; a modality named "joint", or as no module can be, such as "a.b".
    """

    needs_encoders = False

    weights: Tensor
    """w (M + 1,), "joint" last."""

    def __init__(
        self,
        model: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        heads: Mapping[str, nn.Module],
        weights: Mapping[str, float] | None = None,
        super_epoch: int = 5,
    ) -> None:
        super().__init__(model, modalities)
        if not has_fast_path(model):
            raise BalancingError(
                f"GradientBlending classifies the features of each encoder: {type(model).__name__} must have "
                "encode(modality, input) and fuse(features)"
            )
        for name in self.modalities:
            if name == JOINT or not name or "." in name or hasattr(nn.ModuleDict(), name):
                raise BalancingError(f"GradientBlending: a modality cannot be named {name!r}; rename it")
        check_integer("GradientBlending: super_epoch", super_epoch, 1)
        check_named("GradientBlending: heads", heads, self.modalities)
        for name in self.modalities:
            check_module(f"GradientBlending: the head of {name!r}", heads[name])
        self.heads = nn.ModuleDict({name: heads[name] for name in self.modalities})
        self.classifiers = (*self.modalities, JOINT)
        self.super_epoch = super_epoch
        self.online = weights is None
        chosen = dict.fromkeys(self.classifiers, 1.0) if weights is None else weights
        check_named("GradientBlending: weights", chosen, self.classifiers)
        for name, weight in chosen.items():
            check_number(f"GradientBlending: the weight of {name!r}", weight)
        if sum(chosen.values()) == 0:
            raise BalancingError("GradientBlending: one weight must be positive")
        total = sum(chosen.values())
        self.register_buffer("weights", torch.tensor([chosen[name] / total for name in self.classifiers]))
        self.register_buffer("_epoch_losses", torch.zeros(len(self.classifiers)))
        self.register_buffer("_epoch_samples", torch.zeros(()))
        self._epoch_losses: Tensor
        self._epoch_samples: Tensor
        self._first_batches = FirstBatches()
        self._start: tuple[int, dict[str, Losses]] | None = None
        """The epoch after which the super-epoch began, and its losses."""
        # Of this process since the last step. No buffers: DDP would broadcast them
        self._step_losses: Tensor | None = None
        self._step_samples = 0
        self._report()

    def forward(self, inputs: Inputs, target: Tensor) -> Tensor:
        """Return the blended loss of a batch."""
        batch = self._check_batch(inputs, target)
        trains = self.training and torch.is_grad_enabled()
        if trains and not target.is_meta:
            advice = "GradientBlending classifies what encode returns"
            self._first_batches(
                lambda: check_forward(self.model, self.modalities, inputs, batch, advice), target.device
            )
        losses = self._losses(inputs, target)
        if trains:
            total = losses.detach() * len(target)
            self._step_losses = total if self._step_losses is None else self._step_losses + total
            self._step_samples += len(target)
            for name, loss in zip(self.classifiers, losses.detach(), strict=True):
                self._scalars[f"loss/{name}"] = loss
        return (self.weights.to(losses.dtype) * losses).sum()

    @torch.no_grad()
    def before_step(self) -> None:
        """Add the losses of the step, over all processes, to the means of the epoch."""
        super().before_step()
        if self._step_losses is None:
            return
        samples = self._step_losses.new_full((1,), self._step_samples)
        found = sum_over_processes(torch.cat([self._step_losses, samples]))
        self._epoch_losses += found[:-1].to(self._epoch_losses.dtype)
        self._epoch_samples += found[-1].to(self._epoch_samples.dtype)
        self._step_losses, self._step_samples = None, 0

    @torch.no_grad()
    def validation_losses(self, inputs: Inputs, target: Tensor) -> dict[str, Tensor]:
        """Return the loss of each modality's classifier and of the joint one, which `after_epoch` needs."""
        self._check_batch(inputs, target)
        return dict(zip(self.classifiers, self._losses(inputs, target), strict=True))

    @torch.no_grad()
    def after_epoch(self, epoch: int, validation: Validation | None = None) -> None:
        """Estimate new weights at the end of a super-epoch, if online.

        Raises:
            BalancingError: online and no validation, or its `method_loss` lacks a classifier, or no step was
                taken since the last epoch.
        """
        found = {}
        if self.online:
            found = self._validated(validation, "method_loss", self.classifiers)
        super().after_epoch(epoch, validation)
        samples = self._epoch_samples.item()
        training = (self._epoch_losses / self._epoch_samples).tolist()
        self._epoch_losses.zero_()
        self._epoch_samples.zero_()
        if not self.online:
            return
        if samples == 0:
            raise BalancingError("GradientBlending.after_epoch() needs before_step() in each step")
        reached = {
            name: Losses(each, found[name]) for name, each in zip(self.classifiers, training, strict=True)
        }
        if self._start is None:
            self._start = epoch, reached
        elif epoch - self._start[0] >= self.super_epoch:
            weights = blending_weights(self._start[1], reached)
            if weights is not None:
                self.weights.copy_(torch.tensor([weights[name] for name in self.classifiers]))
            self._start = epoch, reached
        self._report()

    def get_extra_state(self) -> dict[str, Any]:
        """Return the start of the super-epoch and the last epoch, for `state_dict`."""
        epoch, losses = (None, {}) if self._start is None else self._start
        return {
            **self._common_state(),
            "epoch": epoch,
            "losses": {name: [each.training, each.validation] for name, each in losses.items()},
        }

    def set_extra_state(self, state: Any) -> None:
        """Restore the start of the super-epoch and the last epoch.

        Raises:
            BalancingError: the state is damaged, or of another method or other modalities.
        """
        with restoring("GradientBlending"):
            self._restore_common(state)
            self._start = None
            if state["epoch"] is not None:
                losses = {name: Losses(*state["losses"][name]) for name in self.classifiers}
                self._start = int(state["epoch"]), losses
        self._report()

    def _losses(self, inputs: Inputs, target: Tensor) -> Tensor:
        """Return the cross-entropies of all classifiers (M + 1,)."""
        features = {name: encode(self.model, name, inputs[name]) for name in self.modalities}
        logits = [self.heads[name](features[name]) for name in self.modalities]
        for name, each in zip(self.modalities, logits, strict=True):
            if each.dim() != 2:
                raise BalancingError(
                    f"GradientBlending: the head of {name!r} must return logits (B, num_classes), got "
                    f"{tuple(each.shape)} from features {tuple(features[name].shape)}; pool them in the head"
                )
        joint = fuse(self.model, inputs, features)
        return torch.stack([self._cross_entropy(each, target) for each in [*logits, joint]])

    def _report(self) -> None:
        """Set the scalars to log that do not change in a step."""
        for index, name in enumerate(self.classifiers):
            self._scalars[f"weight/{name}"] = self.weights[index].clone()
            self._scalars.setdefault(f"loss/{name}", torch.zeros(()))


def blending_weights(start: Mapping[str, Losses], end: Mapping[str, Losses]) -> dict[str, float] | None:
    """Return the weight of each classifier from its losses at two moments, w_k ∝ G_k / O_k², Σ w_k = 1.

    G = L_val(start) − L_val(end) is what it gained on the validation split, and O the growth of the gap
    L_val − L_train between the two moments. A negative G counts as 0, |O| as at least `LEAST_OVERFITTING`.

    Args:
        start: losses by classifier, one of each modality and "joint", at the start of its training.
        end: the same at the end.

    Returns:
        The weights, or None if no classifier has gained anything.

    Raises:
        BalancingError: `start` and `end` differ in their classifiers.
    """
    check_named("losses at the end", end, list(start))
    raw = {}
    for name, before in start.items():
        after = end[name]
        gain = max(before.validation - after.validation, 0.0)
        growth = (after.validation - after.training) - (before.validation - before.training)
        raw[name] = gain / max(abs(growth), LEAST_OVERFITTING) ** 2
    total = sum(raw.values())
    return {name: weight / total for name, weight in raw.items()} if total > 0 else None
