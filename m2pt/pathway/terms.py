"""What is added to the parameters of a layer: for each auxiliary a matrix A and a scale λ."""

import math
from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn

from m2pt.pathway.names import scale_name


class PathwayError(ValueError):
    """A target, an auxiliary or a request does not fit; the message names the layers and says what to do."""


class Pathway(nn.Module):
    """What one auxiliary adds to one layer: for each parameter a matrix A of W's shape and a scale λ.

    `disablers` counts the `with` blocks of `disabled` around, `factors` are those of `scaled`, `factor` is
    their product.

    For a parameter called `weight` they are named `weight` and `scale`, for one called `in_proj_weight`
    `in_proj_weight` and `in_proj_scale`. λ has one element, or one for each of equal groups of output rows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.disablers = 0
        self.factors: list[float] = []
        self.factor = 1.0
        self.names: tuple[str, ...] = ()

    def add(self, name: str, matrix: Tensor, scale: Tensor, *, scale_trainable: bool) -> None:
        """Add the matrix and the scale for the layer's parameter `name`."""
        self.register_parameter(name, nn.Parameter(matrix))
        self.register_parameter(scale_name(name), nn.Parameter(scale, requires_grad=scale_trainable))
        self.names += (name,)

    def pair(self, name: str) -> tuple[nn.Parameter, nn.Parameter]:
        """Return the matrix and the scale for the layer's parameter `name`.

        Raises:
            PathwayError: one of them is not a parameter, as after pruning.
        """
        own, scale = self._parameters, scale_name(name)
        if name not in own or scale not in own:
            raise PathwayError(
                f"{scale if name in own else name!r} of a pathway is no longer a parameter: weight_norm, "
                "parametrizations and pruning cannot follow attach(); remove them, or merge first"
            )
        return cast(nn.Parameter, own[name]), cast(nn.Parameter, own[scale])

    def set_factors(self, factors: list[float]) -> None:
        """Multiply λ in forwards by each of the factors."""
        self.factors, self.factor = factors, math.prod(factors)

    def extra_repr(self) -> str:
        """Return the shapes of A and λ for `print`: `weight: (576, 192), scale: (1,)`."""
        return ", ".join(f"{name}: {tuple(value.shape)}" for name, value in self.named_parameters())

    def __setstate__(self, state: Any) -> None:
        """Reset a copy: the `with` blocks of `disabled` and `scaled` end for the original alone."""
        super().__setstate__(state)
        self.disablers = 0
        self.set_factors([])


class HasPathways:
    """Marks the layers that have pathways, for the parameters `attached_names`."""

    attached_names: tuple[str, ...]
    pathways: nn.ModuleDict


def is_attached(module: nn.Module) -> bool:
    """Return whether the module is a layer with pathways."""
    return isinstance(module, HasPathways)


def attached_names(layer: nn.Module) -> tuple[str, ...]:
    """Return the names of the layer's parameters that have pathways."""
    return layer.attached_names if isinstance(layer, HasPathways) else ()


def parameter(layer: nn.Module, name: str = "weight") -> nn.Parameter:
    """Return the parameter W, also inside a forward."""
    return cast(nn.Parameter, vars(layer)["_parameters"][name])


def pathways(layer: nn.Module) -> dict[str, Pathway]:
    """Return the pathways of a layer by the auxiliary's name."""
    return cast(dict[str, Pathway], vars(layer)["_modules"]["pathways"]._modules)


def terms(layer: nn.Module, name: str = "weight") -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Return A and λ of each auxiliary that the layer's parameter `name` has."""
    found = pathways(layer).items()
    return {key: pathway.pair(name) for key, pathway in found if name in pathway.names}


def enabled_terms(layer: nn.Module, name: str) -> list[tuple[Tensor, Tensor]]:
    """Return A and λ, times its factors, of each auxiliary that is not disabled."""
    found: list[tuple[Tensor, Tensor]] = []
    for pathway in pathways(layer).values():
        if name in pathway.names and not pathway.disablers:
            matrix, scale = pathway.pair(name)
            found.append((matrix, scale if pathway.factor == 1.0 else scale * pathway.factor))
    return found


def listed(names: Iterable[str]) -> str:
    """Return names as messages write them: `'fc1', 'fc2'`."""
    return ", ".join(repr(name) for name in names) or "none"
