"""Checks with the first batch: the fast path gives the logits of the model, and gradients can flow."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.agm.checks import BalancingError, Inputs, in_order_of
from m2pt.agm.modes import evaluation_mode
from m2pt.agm.passes import SubsetPasses


def check_first_batch(model: nn.Module, passes: SubsetPasses, inputs: Inputs, batch: int) -> None:
    """Check a model with its first batch, in evaluation mode: no state changes, nor does a generator.

    Args:
        model: the model.
        passes: how its subsets are computed.
        inputs: a checked batch.
        batch: its size B.

    Raises:
        BalancingError: `encode` and `fuse` give other logits than the model; or the logits do not depend on
            a modality in a way that can be differentiated.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        if passes.encodes_once(model):
            _check_mode(model, passes, inputs)
    with torch.random.fork_rng(devices), evaluation_mode(model):
        if passes.encodes_once(model):
            _check_fast_path(model, passes, inputs, batch)
            missing = _without_gradient_from_features(model, passes, inputs)
        else:
            missing = _without_gradient_from_inputs(model, passes, inputs)
    if missing:
        raise BalancingError(
            f"the logits of {type(model).__name__} cannot be differentiated in modality {missing[0]!r}: look "
            "for detach(), no_grad() or argmax() between its encoder and the logits"
        )


@torch.no_grad()
def _check_fast_path(model: nn.Module, passes: SubsetPasses, inputs: Inputs, batch: int) -> None:
    """Compare the fast path with passes of the whole model: with all modalities, and with each alone."""
    muted = {name: passes.muting(name, inputs[name], batch) for name in passes.modalities}
    found = passes(model, inputs, batch)
    exact = found.dtype == torch.float64
    low = torch.is_autocast_enabled(found.device.type) or (not exact and _is_low_precision(model))
    tolerance = 1e-8 if exact else 5e-2 if low else 1e-3
    for subset, logits in zip(passes.subsets, found, strict=True):
        if len(subset) in (1, len(passes.modalities)):
            reference = model(passes.select(subset, inputs, muted)).to(logits.dtype)
            difference = (logits - reference).abs().max()
            if difference > tolerance * (1e-3 + reference.abs().max()):
                raise BalancingError(
                    f"fuse(encode(...)) of {type(model).__name__} differs from its forward by "
                    f"{difference.item():.3g}, with {', '.join(sorted(subset))} present: forward must do the "
                    "same, no sample may depend on the others of its batch, and a modality in "
                    "constant_when_muted must not depend on what muting keeps. fast_path=False uses forward "
                    "alone"
                )


@torch.no_grad()
def _check_mode(model: Any, passes: SubsetPasses, inputs: Inputs) -> None:
    """Compare both modes of the encoders that are encoded once; buffers that change are restored."""
    once = passes.encoded_once(model)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    trained = {name: model.encode(name, inputs[name]) for name in once}
    for buffer, value in buffers:
        buffer.copy_(value)
    with evaluation_mode(model):
        for name in once:
            evaluated = model.encode(name, inputs[name])
            difference = (trained[name] - evaluated).abs().max()
            if difference > 1e-2 * (1e-3 + evaluated.abs().max()):
                raise BalancingError(
                    f"encode({name!r}, ...) of {type(model).__name__} depends on the mode, by "
                    f"{difference.item():.3g}, but no module of its encoder says so: fast_path=False uses "
                    "forward alone"
                )


def _without_gradient_from_features(model: Any, passes: SubsetPasses, inputs: Inputs) -> list[str]:
    """Return the modalities whose features do not reach the logits, or whose encoders cannot be trained."""
    features = {name: model.encode(name, inputs[name]) for name in passes.modalities}
    leaves = {}
    for name, feature in features.items():
        encoder = passes.encoders.get(name)
        if not feature.requires_grad and encoder is not None and _trainable(encoder.parameters()):
            return [name]
        if not feature.is_floating_point():
            return [name]
        leaves[name] = feature.detach().requires_grad_()
    logits = model.fuse(in_order_of(inputs, {name: leaf.clone() for name, leaf in leaves.items()}))
    gradients = _gradients(logits, list(leaves.values()))
    return [name for name, gradient in zip(leaves, gradients, strict=True) if gradient is None]


def _without_gradient_from_inputs(model: nn.Module, passes: SubsetPasses, inputs: Inputs) -> list[str]:
    """Return the modalities that do not reach the logits of a black box.

    The gradient of the encoder's parameters decides where the encoder is known. Otherwise it is the gradient
    of the input, and since a model may well round its inputs, only if some parameter is not trained either.
    """
    leaves: dict[str, list[Tensor]] = {name: [] for name in passes.modalities}

    def as_leaf(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        leaves[name].append(tensor.detach().requires_grad_())
        return leaves[name][-1].clone()

    given: dict[str, Any] = {}
    for name in passes.modalities:
        value = inputs[name]
        if isinstance(value, Tensor):
            given[name] = as_leaf(name, value)
        else:
            given[name] = {key: as_leaf(name, tensor) for key, tensor in value.items()}
    logits = model(in_order_of(inputs, given))
    parameters = _trainable(model.parameters())
    tensors = [*parameters, *(leaf for several in leaves.values() for leaf in several)]
    gradients = zip(tensors, _gradients(logits, tensors), strict=True)
    unreached = {id(tensor) for tensor, gradient in gradients if gradient is None}
    untrained = any(id(parameter) in unreached for parameter in parameters)
    missing = []
    for name in passes.modalities:
        if own := _trainable(passes.encoders[name].parameters()) if name in passes.encoders else []:
            is_missing = all(id(parameter) in unreached for parameter in own)
        else:
            reached = any(id(leaf) not in unreached for leaf in leaves[name])
            is_missing = bool(leaves[name]) and not reached and (untrained or not parameters)
        if is_missing:
            missing.append(name)
    return missing


def _gradients(logits: Tensor, tensors: list[Tensor]) -> list[Tensor | None]:
    """Return the gradients of the sum of the logits; None where there is no path.

    Raises:
        BalancingError: the model recomputes activations in a way that does not allow it.
    """
    if not tensors or not logits.requires_grad:
        return [None] * len(tensors)
    try:
        return list(torch.autograd.grad(logits.sum(), tensors, allow_unused=True))
    except RuntimeError as error:
        if "incompatible with .grad()" not in str(error):
            raise
        raise BalancingError("the model uses reentrant checkpointing: set use_reentrant=False") from error


def _trainable(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Return the parameters that require a gradient."""
    return [parameter for parameter in parameters if parameter.requires_grad]


def _is_low_precision(model: nn.Module) -> bool:
    """Return whether a model's weights are float16 or bfloat16."""
    return any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())
