"""How a model is called, whole or by its encoders and fusion, and that it leaves its inputs as they are."""

import copy
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from m2pt.agm.checks import BalancingError, Inputs, in_order_of


def has_fast_path(model: nn.Module) -> bool:
    """Return whether a model offers `encode` and `fuse`."""
    return callable(getattr(model, "encode", None)) and callable(getattr(model, "fuse", None))


def encode(model: Any, modality: str, value: Any) -> Tensor:
    """Return the features of a modality.

    Raises:
        BalancingError: `model.encode` returns no tensor.
    """
    features = model.encode(modality, own(value))
    if not isinstance(features, Tensor):
        raise BalancingError(f"encode({modality!r}, ...) must return a tensor, got {type(features).__name__}")
    return features


def fuse(model: Any, inputs: Inputs, features: Mapping[str, Tensor]) -> Any:
    """Return what `model.fuse` makes of features, given in the order of the inputs."""
    return model.fuse(in_order_of(inputs, features))


def own_inputs(inputs: Inputs, modalities: Iterable[str]) -> dict[str, Any]:
    """Return the inputs of some modalities for one pass, in their order: see `own`."""
    return {name: own(value) for name, value in inputs.items() if name in modalities}


def own(value: Any) -> Any:
    """Return a modality's input for one pass: a dict is copied, so that the pass may take entries out."""
    return copy.copy(value) if isinstance(value, MutableMapping) else value


def cloned(inputs: Inputs, modalities: Iterable[str]) -> dict[str, Any]:
    """Return the inputs of some modalities with tensors of their own, in their order."""
    return {
        name: value.detach().clone()
        if isinstance(value, Tensor)
        else {key: tensor.detach().clone() for key, tensor in value.items()}
        for name, value in inputs.items()
        if name in modalities
    }


@contextmanager
def unchanged(values: Mapping[str, Any], who: str, what: str, advice: str) -> Iterator[None]:
    """Check that tensors by modality are not changed in place, without a look at their values.

    Args:
        values: a tensor or a mapping of tensors of each modality.
        who: what could change them, for the message.
        what: what they are, for the message.
        advice: what to do about it, for the message.

    Raises:
        BalancingError: a tensor was changed; the message names its modality.
    """
    tensors = [
        (name, each)
        for name, value in values.items()
        for each in (value.values() if isinstance(value, Mapping) else [value])
        if not each.is_inference()  # torch itself refuses to change those
    ]
    before = [tensor._version for _, tensor in tensors]
    yield
    for (name, tensor), version in zip(tensors, before, strict=True):
        if tensor._version != version:
            raise BalancingError(
                f"{who} changes the {what} of modality {name!r} in place, and other passes "
                f"need them: {advice}"
            )
