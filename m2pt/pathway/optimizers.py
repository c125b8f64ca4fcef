"""Pathways and optimizers: groups of parameters, and optimizers that were built too early."""

import gc
import warnings
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from m2pt.pathway.layers import attached_names, parameter, terms
from m2pt.pathway.names import is_scale


def parameter_groups(
    model: nn.Module, lr: float, scale_lr: float | None = None, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups for an optimizer of torch.

    Matrices and kernels decay; biases, norms and other vectors do not, nor what `model.no_weight_decay()`
    names, as timm's models do for `cls_token` and `pos_embed`, nor the scales λ, which have their own rate.

    Args:
        model: the model, with pathways or without.
        lr: learning rate of all but the scales.
        scale_lr: learning rate of the scales; `lr` if it is None.
        weight_decay: of matrices and kernels.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`: "matrices", "undecayed", "scales", if not
        empty.
    """
    groups: dict[str, dict[str, Any]] = {
        "matrices": {"lr": lr, "weight_decay": weight_decay},
        "undecayed": {"lr": lr, "weight_decay": 0.0},
        "scales": {"lr": lr if scale_lr is None else scale_lr, "weight_decay": 0.0},
    }
    keep = set(getattr(model, "no_weight_decay", set)())
    members: dict[str, list[nn.Parameter]] = {name: [] for name in groups}
    for name, value in model.named_parameters():
        if value.requires_grad:
            decays = value.ndim > 1 and name not in keep
            members["scales" if is_scale(name) else "matrices" if decays else "undecayed"].append(value)
    return [{"name": name, "params": members[name], **groups[name]} for name in groups if members[name]]


_unchecked: WeakKeyDictionary[torch.optim.Optimizer, list[nn.Module]] = WeakKeyDictionary()
"""Layers attached since the last step of each optimizer that was built before; one hook checks them."""


def warn_of_optimizers(layers: Sequence[nn.Module]) -> None:
    """Have optimizers that hold a weight of the layers warn at their next step if they lack its A and λ."""
    own = [parameter(layer, name) for layer in layers for name in attached_names(layer)]
    weights = {id(each) for each in own if not each.is_meta}  # which no optimizer has a use for
    if not weights:
        return  # the search takes a while
    for found in gc.get_objects():
        if issubclass(type(found), torch.optim.Optimizer) and weights & _held(found):
            if found not in _unchecked:
                _unchecked[found] = []
                found.register_step_pre_hook(_warn_once)
            _unchecked[found] += layers


def _warn_once(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Warn if the optimizer lacks parameters of the layers attached since its last step, and forget these."""
    layers, _unchecked[optimizer] = _unchecked.get(optimizer, []), []
    held = _held(optimizer)
    for layer in layers:
        for name in attached_names(layer):
            added = [tensor for pair in terms(layer, name).values() for tensor in pair]
            if id(parameter(layer, name)) in held and any(
                tensor.requires_grad and id(tensor) not in held for tensor in added
            ):
                warnings.warn(
                    "this optimizer was built before attach() and does not train the matrices and scales "
                    "of the pathways; build it afterwards, or add them with add_param_group()",
                    stacklevel=4,
                )
                return


def _held(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
