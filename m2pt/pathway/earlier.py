"""What was built before `attach` and does not know A and λ: optimizers and what runs a model in parallel."""

import gc
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import compress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from m2pt.pathway.terms import PathwayError, is_attached, parameter, terms


class Added(NamedTuple):
    """Which A and λ were attached: of the auxiliary, for the layer's parameter `name`.

    `weight` is the parameter that the layer had before; if it was shared and untied, W is new as well.
    """

    layer: nn.Module
    name: str
    auxiliary: str
    weight: nn.Parameter

    def trained(self) -> list[Tensor]:
        """Return what is new, still attached and trained."""
        if not is_attached(self.layer) or self.auxiliary not in (own := terms(self.layer, self.name)):
            return []
        new = [parameter(self.layer, self.name), *own[self.auxiliary]]
        return [each for each in new if each.requires_grad and each is not self.weight]


def watch_earlier(added: Sequence[Added]) -> None:
    """Have what was built before notice, when it is used next, that it lacks what was added.

    An optimizer that holds a weight of the layers warns at its next step, and DistributedDataParallel around
    them refuses forwards that are to be trained: it would not average the gradients of A and λ.

    Raises:
        PathwayError: DistributedDataParallel has a weight without its layer, as inside `replicate`, where it
            could not refuse a forward.
    """
    weights = {id(each.weight) for each in added if not each.weight.is_meta}  # which nothing trains yet
    if not weights:
        return  # the search takes a while
    layers = {id(each.layer) for each in added}
    optimizers = _instances(torch.optim.Optimizer)
    inside = {
        each: layers.intersection(map(id, each.modules())) for each in _instances(DistributedDataParallel)
    }
    for each, found in inside.items():
        if not found and not weights.isdisjoint(map(id, each.parameters())):
            raise PathwayError(
                "a DistributedDataParallel, as inside replicate(), has weights of the target and would not "
                "average the gradients of the matrices and scales of pathways: attach to the model first, "
                "and replicate or wrap it then"
            )
    for each, found in inside.items():
        if own := [part for part in added if id(part.layer) in found]:
            each.register_forward_pre_hook(partial(_refuse, added=own))
    for each in optimizers:
        if weights & _held(each):
            if each not in _unchecked:
                _unchecked[each] = []
                each.register_step_pre_hook(_warn_once)
            _unchecked[each] += added


def check_flattened(roots: Iterable[nn.Module]) -> None:
    """Refuse what FullyShardedDataParallel has wrapped: it would not know A and λ.

    Raises:
        PathwayError: there is one around or inside one of `roots`.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    from torch.distributed.fsdp import FullyShardedDataParallel

    modules = {id(module) for root in roots for module in root.modules()}
    for each in _instances(FullyShardedDataParallel):
        if not modules.isdisjoint(map(id, each.modules())):
            raise PathwayError(
                "FullyShardedDataParallel keeps the target's weights in one flat parameter, where pathways "
                "cannot be attached, nor can it follow attach(): use fully_shard, after attach()"
            )


def _instances(kind: type) -> list[Any]:
    """Return all objects of a class; there are too many objects for a loop in Python."""
    classes = [kind]
    for each in classes:
        classes += each.__subclasses__()
    objects = gc.get_objects()
    return list(compress(objects, map(set(classes).__contains__, map(type, objects))))


_unchecked: WeakKeyDictionary[torch.optim.Optimizer, list[Added]] = WeakKeyDictionary()
"""What was added since the last step of each optimizer that was built before; one hook checks it."""


def _warn_once(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Warn of what was added, since its last step, to weights that it has, and forget it."""
    added, _unchecked[optimizer] = _unchecked.get(optimizer, []), []
    held = _held(optimizer)
    for each in added:
        trained = {id(value) for value in each.trained()}
        if trained and id(each.weight) in held and not held.issuperset(trained):
            warnings.warn(
                "this optimizer was built before attach() and does not train the matrices and scales "
                "of the pathways; build it afterwards, or add them with add_param_group()",
                stacklevel=4,
            )
            return


def _held(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _refuse(module: nn.Module, args: Any, *, added: Iterable[Added]) -> None:
    """Refuse a forward to be trained."""
    if torch.is_grad_enabled() and any(each.trained() for each in added):
        raise PathwayError(
            "this DistributedDataParallel was built before attach() and would not average the gradients of "
            "the matrices and scales of the pathways: wrap the model again, after attach()"
        )
