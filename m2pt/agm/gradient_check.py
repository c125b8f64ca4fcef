"""A check that the gradient of a model's logits reaches each modality."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.agm.calls import cloned, encode, fuse, own_inputs
from m2pt.agm.checks import BalancingError, Inputs, check_logits
from m2pt.agm.passes import SubsetPasses

LEAST_EFFECT = 1e-6
"""Relative difference of logits from which they depend on a modality, above what rounding makes."""


@dataclass(frozen=True)
class Unreached:
    """Modalities without a path for gradients, and those whose gradients are exactly 0."""

    cut: list[str]
    flat: list[str]


def check_gradients(model: nn.Module, passes: SubsetPasses, inputs: Inputs, batch: int) -> bool:
    """Check that the logits can be differentiated in each modality, in the model's present mode.

    Args:
        model: the model.
        passes: how its subsets are computed.
        inputs: a checked batch.
        batch: its size B.

    Returns:
        Whether the check says something about each modality: not about one on which the logits do not depend
        so far, as behind a layer that starts at zero.

    Raises:
        BalancingError: a modality has no path for gradients, or the logits depend on it while its gradient is
            exactly 0.
    """
    if passes.encodes_once(model):
        unreached = _from_features(model, passes, inputs, batch)
    else:
        unreached = _from_inputs(model, passes, inputs, batch)
    if unreached.cut:
        raise BalancingError(
            f"the logits of {type(model).__name__} cannot be differentiated in modality "
            f"{unreached.cut[0]!r}: look for detach(), no_grad(), argmax() or a checkpoint with "
            "use_reentrant=True between its input and the logits"
        )
    if depended := [name for name in unreached.flat if _has_effect(model, passes, inputs, batch, name)]:
        raise BalancingError(
            f"the logits of {type(model).__name__} cannot be differentiated in modality {depended[0]!r}: "
            "they depend on it, but their gradient is 0: look for sign(), round() or a comparison between "
            "its encoder and the logits"
        )
    return not unreached.flat


@torch.no_grad()
def _has_effect(model: nn.Module, passes: SubsetPasses, inputs: Inputs, batch: int, modality: str) -> bool:
    """Return whether the logits change when a modality is muted."""
    given = cloned(inputs, passes.modalities)
    muted = {name: passes.muting(name, given[name], batch) for name in passes.modalities}
    every = frozenset(passes.modalities)
    full, without = (
        model(own_inputs(cloned(passes.select(each, given, muted), every), every))
        for each in (every, every - {modality})
    )
    return bool((full - without).abs().max() > LEAST_EFFECT * full.abs().max())


def _from_features(model: Any, passes: SubsetPasses, inputs: Inputs, batch: int) -> Unreached:
    """Return the modalities whose features do not reach the logits, or whose encoders cannot be trained."""
    given = cloned(inputs, passes.modalities)
    features = {name: encode(model, name, given[name]) for name in passes.modalities}
    leaves = {}
    for name, feature in features.items():
        encoder = passes.encoders.get(name)
        if not feature.requires_grad and encoder is not None and _trainable(encoder.parameters()):
            return Unreached([name], [])
        if not (feature.is_floating_point() or feature.is_complex()):
            return Unreached([name], [])
        leaves[name] = feature.detach().requires_grad_()
    logits = fuse(model, inputs, {name: leaf.clone() for name, leaf in leaves.items()})
    check_logits(logits, batch, type(model).__name__)
    gradients = dict(zip(leaves, _gradients(logits, list(leaves.values())), strict=True))
    return Unreached(
        [name for name, gradient in gradients.items() if gradient is None],
        [name for name, gradient in gradients.items() if gradient is not None and not gradient.any()],
    )


def _from_inputs(model: nn.Module, passes: SubsetPasses, inputs: Inputs, batch: int) -> Unreached:
    """Return the modalities that do not reach the logits of a black box.

    The gradient of the encoder's parameters decides where the encoder is known. Otherwise it is the gradient
    of the input, and since a model may well round its inputs, only if some parameter is not trained either.
    """
    leaves: dict[str, list[Tensor]] = {name: [] for name in passes.modalities}

    def as_leaf(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        leaves[name].append(tensor.requires_grad_())
        return tensor.clone()

    given: dict[str, Any] = {}
    for name, value in cloned(inputs, passes.modalities).items():
        if isinstance(value, Tensor):
            given[name] = as_leaf(name, value)
        else:
            given[name] = {key: as_leaf(name, tensor) for key, tensor in value.items()}
    logits = model(given)
    check_logits(logits, batch, type(model).__name__)
    parameters = _trainable(model.parameters())
    tensors = [*parameters, *(leaf for several in leaves.values() for leaf in several)]
    gradients = {
        id(tensor): gradient for tensor, gradient in zip(tensors, _gradients(logits, tensors), strict=True)
    }
    cut = {key for key, gradient in gradients.items() if gradient is None}
    flat = {key for key, gradient in gradients.items() if gradient is None or not gradient.any()}

    parts = {name: _trainable(encoder.parameters()) for name, encoder in passes.encoders.items()}

    def is_missing(name: str, missing: set[int]) -> bool:
        if own := parts.get(name):
            return all(id(parameter) in missing for parameter in own)
        untrained = not parameters or any(id(parameter) in missing for parameter in parameters)
        return untrained and bool(leaves[name]) and all(id(leaf) in missing for leaf in leaves[name])

    without_path = [name for name in passes.modalities if is_missing(name, cut)]
    return Unreached(
        without_path,
        [
            name
            for name in passes.modalities
            if name not in without_path
            and is_missing(name, flat)
            and (parts.get(name) or any(id(leaf) not in cut for leaf in leaves[name]))
        ],
    )


def _gradients(logits: Tensor, tensors: list[Tensor]) -> list[Tensor | None]:
    """Return the gradients of a random combination of the logits; None where there is no path.

    Raises:
        BalancingError: the model recomputes activations in a way that does not allow it.
    """
    if not tensors or not logits.requires_grad:
        return [None] * len(tensors)
    try:
        return list(torch.autograd.grad(logits, tensors, torch.randn_like(logits), allow_unused=True))
    except RuntimeError as error:
        if "incompatible with .grad()" not in str(error):
            raise
        raise BalancingError("the model uses reentrant checkpointing: set use_reentrant=False") from error


def _trainable(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Return the parameters that require a gradient."""
    return [parameter for parameter in parameters if parameter.requires_grad]
