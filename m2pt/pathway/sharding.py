"""Tensors that `fully_shard` has distributed (DTensor), beside plain ones."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def is_distributed(tensor: Any) -> bool:
    """Return whether the tensor is a DTensor, without importing torch.distributed.tensor.

    By its class, since in code that is compiled a DTensor seems to have no method `full_tensor`.
    """
    return hasattr(type(tensor), "full_tensor")


def whole(tensor: Any) -> Tensor:
    """Return the tensor with the values of all processes; a collective if it is distributed."""
    return tensor.full_tensor() if is_distributed(tensor) else tensor


def local(tensor: Any) -> Tensor:
    """Return what this process has of the tensor."""
    return tensor.to_local() if is_distributed(tensor) else tensor


def reshard(modules: Iterable[nn.Module]) -> None:
    """Put the shards of `fully_shard` back where it holds gathered weights, copies that it will discard.

    It does that itself before a state dict is taken, also of a module inside the one that it was given.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for module in modules:
            module.state_dict()


def distributed_as(own: Any, values: Tensor) -> Any:
    """Return values on the device, in the dtype and layout of `own`, and distributed as it is."""
    if not is_distributed(own):
        return torch.empty_like(own).copy_(values)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(values.to(own.device, own.dtype), own.device_mesh, own.placements)


def replicated_beside(own: Any, values: Tensor) -> Any:
    """Return few values on the device of `own`, whole in each of its processes."""
    values = values.to(own.device, copy=True)
    if not is_distributed(own):
        return values
    from torch.distributed.tensor import Replicate, distribute_tensor

    return distribute_tensor(values, own.device_mesh, [Replicate()] * own.device_mesh.ndim)


def replicated(tensor: Any) -> Any:
    """Return a distributed tensor whole in each process: a shard of one number may be empty."""
    if not is_distributed(tensor):
        return tensor
    from torch.distributed.tensor import Replicate

    return tensor.redistribute(placements=[Replicate()] * tensor.device_mesh.ndim)


def gathered(tensor: Any, dtype: torch.dtype) -> Tensor:
    """Return a distributed tensor as a plain one; the mean of the processes' gradients flows back.

    Each process has its own share of the batch: its gradient is one term of their mean.
    """
    from torch.distributed.tensor import Partial

    return tensor.full_tensor(grad_placements=[Partial("avg")] * tensor.device_mesh.ndim).to(dtype)
