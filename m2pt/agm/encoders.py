"""The part of a model that encodes each modality: found by module, never by the name of a parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from m2pt.agm.checks import BalancingError
from m2pt.agm.settings import check_module, check_named


def modalities_of(model: nn.Module) -> Sequence[str]:
    """Return `model.modalities`.

    Raises:
        BalancingError: there is no such attribute.
    """
    found = getattr(model, "modalities", None)
    if found is None:
        raise BalancingError(f"{type(model).__name__} has no `modalities`: give modalities=[...]")
    names: Sequence[str] = found
    return names


def encoders_of(
    model: nn.Module, modalities: Sequence[str], encoders: Mapping[str, nn.Module] | None
) -> dict[str, nn.Module]:
    """Return the encoder of each modality, or nothing if it is not known which they are.

    Args:
        model: a model, which may have `encoders` by modality.
        modalities: names of the modalities.
        encoders: the encoders if the model does not have them; exactly one of each modality.

    Raises:
        BalancingError: `encoders` lacks a modality, has an unknown one, or a value that is no module.
    """
    if encoders is not None:
        check_named("encoders", encoders, modalities)
        for name in modalities:
            check_module(f"encoders: the value for {name!r}", encoders[name])
        return {name: encoders[name] for name in modalities}
    found: Any = getattr(model, "encoders", None)
    if isinstance(found, nn.ModuleDict):
        found = dict(found.items())
    if not isinstance(found, Mapping) or not set(modalities) <= set(found):
        return {}
    own = {name: found[name] for name in modalities}
    return own if all(isinstance(each, nn.Module) for each in own.values()) else {}


def check_shaped(model: nn.Module) -> None:
    """Check that all parameters of a model have a shape.

    Raises:
        BalancingError: a lazy module has not seen a batch yet.
    """
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise BalancingError(
            f"{type(model).__name__} has lazy modules without a shape yet: call it once with a batch first"
        )


def check_separate(method: str, model: nn.Module, encoders: Mapping[str, nn.Module]) -> None:
    """Check that encoders are known, and are separate parts of the model with parameters.

    Raises:
        BalancingError: they are not.
    """
    if not encoders:
        raise BalancingError(
            f"{method} acts on the encoder of each modality, and {type(model).__name__} has no `encoders` of "
            "all of them: give encoders={modality: module, ...}"
        )
    own = {id(parameter) for parameter in model.parameters()}
    owner: dict[int, str] = {}
    for modality, encoder in encoders.items():
        parameters = list(encoder.parameters())
        if not parameters:
            raise BalancingError(f"{method}: the encoder of {modality!r} has no parameters")
        for parameter in parameters:
            if id(parameter) not in own:
                raise BalancingError(f"{method}: the encoder of {modality!r} is not a part of the model")
            if id(parameter) in owner:
                raise BalancingError(
                    f"{method}: the encoders of {owner[id(parameter)]!r} and {modality!r} share parameters"
                )
        owner.update((id(parameter), modality) for parameter in parameters)
