"""What all methods that balance modalities have in common.

    method = OGM(model, alpha=0.8)
    for epoch in range(1, epochs + 1):
        for inputs, target in batches:
            loss = method.loss(inputs, target)
            optimizer.zero_grad()
            loss.backward()
            method.before_step()
            optimizer.step()
        method.after_epoch(epoch, validation)      # what was measured on the validation split
    logits = method.model(inputs)

In several processes wrap the method, not the model, in `DistributedDataParallel`; call the wrapped module for
the loss, and the hooks on the method itself in every process. Each hook takes the same decisions everywhere.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.agm.calls import own_inputs
from m2pt.agm.checks import (
    BalancingError,
    DeferredChecks,
    Inputs,
    check_classes,
    check_inputs,
    check_logits,
    check_target,
)
from m2pt.agm.encoders import check_separate, encoders_of, modalities_of
from m2pt.agm.precision import at_least_float32, full_precision
from m2pt.agm.processes import mean_over_processes
from m2pt.agm.settings import check_epoch, check_modalities, check_module, check_restored


@dataclass(frozen=True)
class Validation:
    """What was measured on the validation split after an epoch; never on the test split.

    Losses are mean cross-entropies in nats, accuracies are fractions from 0 to 1. Mono-modal values are those
    of the mono-modal logits, see `mono_modal_logits`.
    """

    accuracy: float
    loss: float
    mono_accuracy: Mapping[str, float]
    mono_loss: Mapping[str, float]
    method_loss: Mapping[str, float] = field(default_factory=dict)
    """Means of what `BalancingMethod.validation_losses` returned, each batch weighted by its size."""


class BalancingMethod(nn.Module):
    """A model and the way it is trained. Without changes it is plain joint training.

    Args:
        model: called as `model(inputs)`, returns logits (B, num_classes).
        modalities: names of the modalities, the keys of `inputs`; by default `model.modalities`.
        encoders: the part of the model that belongs to each modality; by default `model.encoders`.

    Raises:
        BalancingError: the model or an encoder is no module, fewer than `least_modalities`, names that do not
            fit, or, for a method that needs encoders, encoders that are missing, have no parameters, share
            some, or are not in the model.
    """

    least_modalities = 2
    needs_encoders = True
    needs_before_step = False
    """Whether a training without `before_step` is an error; the method then calls that of this class."""

    model: nn.Module
    modalities: tuple[str, ...]

    def __init__(
        self,
        model: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        encoders: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        method = type(self).__name__
        check_module(f"{method}: model", model)
        self.model = model
        names = modalities_of(model) if modalities is None else modalities
        self.modalities = check_modalities(method, names, self.least_modalities)
        # A plain dictionary: the encoders are registered once, as parts of the model
        self._encoders = encoders_of(model, self.modalities, encoders)
        if self.needs_encoders:
            check_separate(method, model, self._encoders)
        self._checks = DeferredChecks()
        self._scalars: dict[str, Tensor] = {}
        self._last_epoch = 0
        self._has_loss = False
        """Whether a loss with gradients was computed since the last step."""
        self._has_stepped = False
        """Whether a step was taken since the last epoch."""

    def forward(self, inputs: Inputs, target: Tensor) -> Tensor:
        """Return the training loss of a batch, averaged over its samples.

        Args:
            inputs: the batch by modality: a tensor (B, ...), or a dict of tensors such as values and lengths.
                A method of a single modality ignores the others.
            target: class indices (B,).

        Returns:
            A scalar in float32 or better, to call `.backward()` on.

        Raises:
            BalancingError: the batch does not fit, the loss is not finite, or the model is in training mode
                and the method is not. On a GPU a label that is none of the classes, and a loss that is not
                finite, are reported one or two steps late.
        """
        self._check_batch(inputs, target)
        return self._plain_loss(inputs, target)

    def loss(self, inputs: Inputs, target: Tensor) -> Tensor:
        """Return the training loss of a batch; the same as calling the method."""
        loss: Tensor = self(inputs, target)
        return loss

    @property
    def scalars(self) -> dict[str, Tensor]:
        """Values to log, detached scalars on the model's device: the same names after each step."""
        device = self._device
        return {name: value.to(device, non_blocking=True) for name, value in self._scalars.items()}

    def before_step(self) -> None:
        """Change gradients, after the last backward pass of a step and before the optimizer's step.

        Gradients must be complete: summed over accumulated passes, averaged over processes, unscaled and not
        yet clipped.

        Raises:
            BalancingError: the method changes gradients, and no loss was computed since the last step.
        """
        if self.needs_before_step and not self._has_loss:
            raise BalancingError(
                f"{type(self).__name__}.before_step() needs a loss, computed with gradients since the last "
                "step: call it once a step, after backward()"
            )
        self._has_loss, self._has_stepped = False, True

    def after_epoch(self, epoch: int, validation: Validation | None = None) -> None:
        """Act at the end of an epoch.

        Args:
            epoch: number of complete epochs, 1 after the first.
            validation: what was measured on the validation split. A method that adapts needs it.

        Raises:
            BalancingError: the method needs a validation and it is None, or lacks a modality, or it is no
                `Validation`; a check of this epoch's batches failed; the epoch is not above the last one; or
                the method needs `before_step` and it was not called in this epoch.
        """
        self._checks.poll(wait=True)
        self._check_validation(validation)
        check_epoch(epoch, self._last_epoch)
        if self.needs_before_step and self._has_loss and not self._has_stepped:
            raise BalancingError(
                f"{type(self).__name__} changes gradients: call before_step() in each step, after backward() "
                "and before the optimizer's step"
            )
        self._last_epoch, self._has_stepped = int(epoch), False

    @torch.no_grad()
    def validation_losses(self, inputs: Inputs, target: Tensor) -> dict[str, Tensor]:
        """Return further losses of a validation batch, which the method wants as `Validation.method_loss`.

        Call it in evaluation mode, average each loss over the split (weighted by batch size) and over the
        processes. Most methods want none.
        """
        return {}

    def encoder_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of a modality's encoder."""
        return self._encoders[modality].parameters()

    def _common_state(self) -> dict[str, Any]:
        """Return the names of the modalities and the last epoch, a part of a method's extra state."""
        return {"modalities": list(self.modalities), "last_epoch": self._last_epoch}

    def _restore_common(self, state: Mapping[str, Any]) -> None:
        """Restore the last epoch, after a check of the names."""
        check_restored(type(self).__name__, state["modalities"], self.modalities)
        self._last_epoch = int(state["last_epoch"])

    @property
    def _device(self) -> torch.device:
        """The device of the model; of one without parameters, the CPU."""
        return next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))

    def _check_batch(self, inputs: Inputs, target: Tensor) -> int:
        """Check a batch, and that it is for training or not, and return its size B."""
        self._checks.poll()
        if torch.is_grad_enabled() and self.model.training and not self.training:
            method = type(self).__name__
            raise BalancingError(
                f"the model is in training mode, but {method} around it in evaluation mode, in which it only "
                "measures: call train() of the method, not of the model"
            )
        batch = check_inputs(inputs, self.modalities, self._checks)
        check_target(target, batch)
        self._has_loss = self._has_loss or torch.is_grad_enabled()
        return batch

    def _plain_loss(self, inputs: Inputs, target: Tensor) -> Tensor:
        """Return the cross-entropy of the model for a checked batch."""
        return self._cross_entropy(self.model(own_inputs(inputs, self.modalities)), target)

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy, in float32 or better whatever the precision of the logits."""
        check_logits(logits, len(target), type(self.model).__name__)
        target = target.long()
        with full_precision(logits.device):
            check_classes(target, logits.shape[-1], self._checks)
            loss = functional.cross_entropy(at_least_float32(logits), target)
            message = (
                f"the loss of {type(self.model).__name__} is NaN or infinite, as its logits are: lower the "
                "learning rate, and check the inputs"
            )
            self._checks.require(loss.detach().isfinite().reshape(1), [message])
            return loss

    def _check_validation(self, validation: Any) -> None:
        """Check the type of what `after_epoch` is given."""
        if not (validation is None or isinstance(validation, Validation)):
            raise BalancingError(
                f"{type(self).__name__}.after_epoch() needs a Validation, got {type(validation).__name__}: "
                "give Validation(accuracy=..., loss=..., mono_accuracy=..., mono_loss=...)"
            )

    def _validated(
        self, validation: Validation | None, what: str, names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """Return a value of each modality from a `Validation`, averaged over processes, after checks."""
        self._checks.poll(wait=True)
        self._check_validation(validation)
        if validation is None:
            raise BalancingError(
                f"{type(self).__name__} adapts to the validation split: give after_epoch() a Validation"
            )
        values = getattr(validation, what)
        names = self.modalities if names is None else names
        for name in names:
            if not isinstance(values, Mapping) or name not in values or not _is_finite(values[name]):
                raise BalancingError(
                    f"{type(self).__name__}: {what} of the validation has no finite value for {name!r}, "
                    f"got {values!r}"
                )
        device = self._device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        found = torch.tensor([values[name] for name in names], dtype=dtype, device=device)
        return dict(zip(names, mean_over_processes(found).tolist(), strict=True))


def _is_finite(value: Any) -> bool:
    """Return whether a value, a number or a tensor of one, is finite."""
    return isinstance(value, Real | Tensor) and math.isfinite(value)
