"""Batch norm over a batch that several processes share.

Processes that each do whole forward passes of a step need nothing: each pass has the statistics of its
batch, as in a single process, and only the running averages are those of the first process's passes.
Processes that share one batch exchange its statistics, since those of a part would make another training.
mmsegmentation's SyncBN does the same; torch's own SyncBatchNorm does so on GPUs only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn

Group = Any
"""A process group; None means all processes."""

SHARED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def shared_batch_statistics(model: nn.Module, split: int) -> Iterator[None]:
    """Within the block, let batch norms treat the batches of each `split` processes as one batch.

    All processes enter it. Batch norms in evaluation mode are not affected.

    Args:
        model: wrapped or not.
        split: number of processes, with consecutive ranks, that share a batch; 1 changes nothing.
    """
    norms = [module for module in model.modules() if isinstance(module, SHARED)] if split > 1 else []
    group = _own_group(split) if norms else None
    for norm in norms:
        norm.forward = partial(_forward, norm, group)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def broadcast_running_averages(model: nn.Module) -> None:
    """Replace each process's running averages by those of the first, which are the saved ones."""
    for norm in model.modules():
        if isinstance(norm, SHARED):
            for average in norm.buffers(recurse=False):
                distributed.broadcast(average, src=0)


def _own_group(split: int) -> Group:
    """Return the group of `split` consecutive ranks that this process belongs to."""
    if split == distributed.get_world_size():
        return None
    ranks = range(distributed.get_world_size())
    groups = [distributed.new_group(list(ranks[first : first + split])) for first in ranks[::split]]
    return groups[distributed.get_rank() // split]


def _forward(norm: Any, group: Group, x: Tensor) -> Tensor:
    """Apply torch's batch norm to x (B, C, ...), with statistics over all processes of the group."""
    if not norm.training:
        return type(norm).forward(norm, x)
    with torch.autocast(x.device.type, enabled=False):
        values = x.float()
        others = [axis for axis in range(x.dim()) if axis != 1]
        count = values.new_tensor(float(x.numel() // x.shape[1]))
        sums = _Sum.apply(torch.cat([values.sum(others), count[None]]), group)
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        centered = values - mean.view(shape)
        variance = _Sum.apply(centered.square().sum(others), group) / count
        _update_running_averages(norm, mean.detach(), variance.detach() * count / (count - 1))
        normal = centered * (variance + norm.eps).rsqrt().view(shape)
        if norm.affine:
            normal = normal * norm.weight.view(shape) + norm.bias.view(shape)
    return normal.to(x.dtype)


def _update_running_averages(norm: Any, mean: Tensor, variance: Tensor) -> None:
    if not norm.track_running_stats:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), momentum)
    norm.running_var.lerp_(variance.to(norm.running_var), momentum)


class _Sum(torch.autograd.Function):
    """Sum over the processes of a group; the gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Group) -> Tensor:  # type: ignore[override]
        ctx.group = group
        total = value.clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        total = gradient.contiguous().clone()
        distributed.all_reduce(total, group=ctx.group)
        return total, None
