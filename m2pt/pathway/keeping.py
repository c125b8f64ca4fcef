"""The sum that `merge(keep_terms=True)` keeps beside W, Aᵢ and λᵢ, and whether it is still theirs."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from m2pt.pathway.sharding import gathered, is_distributed
from m2pt.pathway.terms import PathwayError, attached_names, parameter, terms


def merged_name(name: str) -> str:
    """Return the name of the buffer that holds W + Σ λᵢAᵢ after `merge(keep_terms=True)`."""
    return f"merged_{name}"


def merged_names(layer: nn.Module) -> list[str]:
    """Return the names of the layer's parameters that are merged with `keep_terms`."""
    return [name for name in attached_names(layer) if merged_name(name) in layer._buffers]


def keep_merged(layer: nn.Module, name: str, merged: Tensor) -> None:
    """Have the layer compute with a merged weight until `unmerge`, or until what it was merged of changes."""
    layer.register_buffer(merged_name(name), merged, persistent=False)
    note_versions(layer, name)


def drop_merged(layer: nn.Module, name: str) -> None:
    """Have the layer compute with W + Σ λᵢAᵢ again."""
    if layer._buffers.pop(merged_name(name), None) is not None:
        layer._non_persistent_buffers_set.discard(merged_name(name))
        del vars(layer)[f"{merged_name(name)}_of"]


def kept(layer: nn.Module, name: str) -> Tensor | None:
    """Return the merged weight as W is, gathered and in the dtype of FSDP's forward; None if there is none.

    Raises:
        PathwayError: gradients are enabled, or what it was merged of has changed.
    """
    merged = vars(layer)["_buffers"].get(merged_name(name))
    if merged is None:
        return None
    if torch.is_grad_enabled():
        raise PathwayError(
            "merged with keep_terms=True, a layer is not trained: unmerge, or use torch.no_grad"
        )
    check_merged(layer, name)
    weight = parameter(layer, name)
    if is_distributed(merged) and not is_distributed(weight):
        return gathered(merged, weight.dtype)
    return merged if merged.dtype == weight.dtype else merged.to(weight.dtype)


def note_versions(layer: nn.Module, name: str) -> None:
    """Note what the merged weight is of."""
    _count_steps()
    vars(layer)[f"{merged_name(name)}_of"] = _versions(layer, name)


def check_merged(layer: nn.Module, name: str) -> None:
    """Refuse a merged weight of other tensors than the layer has.

    Raises:
        PathwayError: it is of others, or they were written since.
    """
    if not torch.compiler.is_compiling() and not is_current(layer, name):
        raise PathwayError(
            f"{name!r} of {type(layer).__name__} or its pathways changed after merge(keep_terms=True): "
            "unmerge the model, and merge it again"
        )


def is_current(layer: nn.Module, name: str) -> bool:
    """Return whether the merged weight is of the tensors that the layer has, as far as that is known."""
    before = vars(layer)[f"{merged_name(name)}_of"]
    return before is None or before == _versions(layer, name)


def _versions(layer: nn.Module, name: str) -> list[tuple[int, int, int]] | None:
    """Return which tensors W, Aᵢ and λᵢ are, where, and how often each was written; None if it is not known.

    `fully_shard` replaces its parameters in each forward, and compiled code knows no versions.
    """
    tensors = [parameter(layer, name), *(each for pair in terms(layer, name).values() for each in pair)]
    if any(is_distributed(tensor) or tensor.is_inference() for tensor in tensors):
        return None
    return [(id(tensor), _start(tensor), tensor._version) for tensor in tensors]


@functools.cache
def _count_steps() -> None:
    """Have each step of an optimizer count as a write to its parameters; fused ones do not count it."""
    register_optimizer_step_post_hook(_count_step)


def _count_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if torch.compiler.is_compiling():
        return
    for group in optimizer.param_groups:
        for each in group["params"]:
            if each.grad is not None and not each.is_inference():
                torch.autograd.graph.increment_version(each)


def _start(tensor: Tensor) -> int:
    """Return where the tensor's memory starts, 0 if it has none."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0
