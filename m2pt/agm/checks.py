"""Checks of batches, and checks of values on a GPU that do not wait for them."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Inputs: TypeAlias = Mapping[str, Any]
"""A batch by modality: a tensor (B, ...), or a mapping of tensors (B, ...) such as values and lengths."""


class BalancingError(ValueError):
    """A model, a batch or a setting that a method cannot work with; the message says what to change."""


class DeferredChecks:
    """Conditions on tensors, checked at once on a CPU and as soon as they are known on a GPU.

    Reading a value from a GPU makes the host wait for all work before it. Here the value is copied in the
    background, so that an error is raised one or two steps late, and no step waits.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Tensor, Any, Sequence[str]]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is pending: an event can be neither copied nor pickled."""
        return {"_pending": []}

    def require(self, holds: Tensor, messages: Sequence[str]) -> None:
        """Require all elements of a boolean tensor (n,) to be true; each has its message.

        Raises:
            BalancingError: one is false, now or when `poll` is called later.
        """
        if holds.is_meta:  # no values: operations are only counted
            return
        if holds.device.type == "cpu":
            _raise_first(holds, messages)
            return
        event = None
        copy = holds.to("cpu", non_blocking=holds.is_cuda)
        if holds.is_cuda:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(holds.device))
        self._pending.append((copy, event, messages))

    def poll(self, *, wait: bool = False) -> None:
        """Look at the conditions that are known by now, or wait for all.

        Raises:
            BalancingError: one is false.
        """
        while self._pending:
            copy, event, messages = self._pending[0]
            if event is not None and not event.query():
                if not wait:
                    return
                event.synchronize()
            del self._pending[0]
            _raise_first(copy, messages)


def _raise_first(holds: Tensor, messages: Sequence[str]) -> None:
    """Raise the first message whose condition is false."""
    for each, message in zip(holds.tolist(), messages, strict=True):
        if not each:
            raise BalancingError(message)


def check_inputs(inputs: Inputs, modalities: Sequence[str], checks: DeferredChecks) -> int:
    """Check a batch without its labels and return its size B.

    Modalities beyond those named are refused, except beside a single one: a model of one modality can read
    any dataset.

    Raises:
        BalancingError: a modality is missing or unknown, is neither a tensor nor a mapping of tensors, is
            empty, has NaN values, or differs in batch size; lengths are no integers, or one is 0.
    """
    if not isinstance(inputs, Mapping):
        raise BalancingError(f"inputs must be a dict by modality, got {type(inputs).__name__}")
    if missing := [name for name in modalities if name not in inputs]:
        raise BalancingError(
            f"the batch lacks modality {missing[0]!r}; it has {', '.join(map(repr, inputs))}"
        )
    extra = [name for name in inputs if name not in modalities]
    if extra and len(modalities) > 1:
        raise BalancingError(f"the batch has modality {extra[0]!r}, which is not among {list(modalities)}")
    sizes = {}
    for modality in modalities:
        for label, tensor in _tensors(modality, inputs[modality]):
            if tensor.dim() == 0:
                raise BalancingError(f"{label} is a scalar: its first axis must be the batch")
            if tensor.numel() == 0:
                raise BalancingError(
                    f"{label} is empty: shape {tuple(tensor.shape)}; leave out samples of length 0"
                )
            sizes[label] = len(tensor)
            if tensor.is_floating_point() or tensor.is_complex():
                checks.require(~tensor.detach().isnan().any().reshape(1), [f"{label} has NaN values"])
        if isinstance(inputs[modality], Mapping) and isinstance(inputs[modality].get("lengths"), Tensor):
            if not _is_integer(inputs[modality]["lengths"]):
                found = inputs[modality]["lengths"].dtype
                raise BalancingError(f"'lengths' of modality {modality!r} must be integers, got {found}")
            message = f"modality {modality!r} has a sequence of length 0: leave such samples out"
            checks.require((inputs[modality]["lengths"] > 0).all().reshape(1), [message])
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{label} {size}" for label, size in sizes.items())
        raise BalancingError(f"the modalities differ in batch size: {listed}")
    return next(iter(sizes.values()))


def in_order_of(inputs: Inputs, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by modality in the order of a batch, whose further modalities are left out."""
    return {name: values[name] for name in inputs if name in values}


def check_target(target: Tensor, batch: int) -> None:
    """Check the form of the labels.

    Raises:
        BalancingError: they are not integers of shape (B,).
    """
    if not isinstance(target, Tensor) or not _is_integer(target):
        found = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise BalancingError(f"target must be a tensor of class indices, got {found}")
    if target.shape != (batch,):
        raise BalancingError(f"target must have the shape ({batch},), got {tuple(target.shape)}")


def check_logits(logits: Tensor, batch: int, model: str) -> None:
    """Check the form of a model's output.

    Raises:
        BalancingError: it is not a tensor (B, num_classes) of real numbers.
    """
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != batch:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise BalancingError(f"{model} must return logits ({batch}, num_classes), got {found}")
    if not logits.is_floating_point():
        raise BalancingError(f"{model} must return logits of floating-point numbers, got {logits.dtype}")


def check_classes(target: Tensor, classes: int, checks: DeferredChecks) -> None:
    """Check the labels against the number of logits.

    Raises:
        BalancingError: a label is none of the classes.
    """
    holds = ((target >= 0) & (target < classes)).all().reshape(1)
    checks.require(holds, [f"target has a class outside 0 to {classes - 1}"])


def _is_integer(tensor: Tensor) -> bool:
    """Return whether a tensor has integers, signed or not."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _tensors(modality: str, value: Any) -> list[tuple[str, Tensor]]:
    """Return the tensors of a modality's input, with a label for messages."""
    if isinstance(value, Tensor):
        return [(f"modality {modality!r}", value)]
    if not isinstance(value, Mapping) or not value:
        raise BalancingError(
            f"modality {modality!r} must be a tensor or a dict of tensors, got {type(value).__name__}"
        )
    for name, tensor in value.items():
        if not isinstance(tensor, Tensor):
            raise BalancingError(
                f"{name!r} of modality {modality!r} must be a tensor, got {type(tensor).__name__}"
            )
    return [(f"{name!r} of modality {modality!r}", tensor) for name, tensor in value.items()]
