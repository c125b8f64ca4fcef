"""Evaluation of a model on a task, in one process or distributed."""

from collections.abc import Callable, Iterable
from itertools import chain, zip_longest
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import distributed, nn

from m2pt.tasks.target import TargetTask


def evaluate(
    task: TargetTask,
    model: nn.Module,
    loader: Iterable[Any],
    device: torch.device,
    announce: Callable[[Any], Iterable[Any]] = iter,
) -> dict[str, float] | None:
    """Return the task's metrics in percent over all batches of all processes; None in all but the first.

    The metrics do not depend on the number of processes: the measurements of all batches are gathered in the
    order of a single process.

    Args:
        task: computes the metrics.
        model: not wrapped in DDP, with the same weights in each process. It is put in evaluation mode.
        loader: this process's batches, every world-th one (`m2pt.training.loading.evaluation_loader`).
        device: the model's device.
        announce: shows the progress of an iteration over the loader.

    Raises:
        InputError: there is nothing to evaluate.
    """
    model.eval()
    with torch.inference_mode():
        own = [task.measure(model, send_to_device(batch, device)) for batch in announce(loader)]
    measured = in_order(own)
    return None if measured is None else task.summarize(measured, getattr(loader, "dataset", None))


def in_order(own: list[Any]) -> list[Any] | None:
    """Return the items of all processes, the m-th of rank r at index m·world + r; None in all but rank 0."""
    if not distributed.is_available() or not distributed.is_initialized():
        return own
    rank, world = distributed.get_rank(), distributed.get_world_size()
    parts: list[Any] | None = [None] * world if rank == 0 else None
    distributed.gather_object(own, parts)
    if parts is None:
        return None
    nothing = object()
    return [
        item for item in chain.from_iterable(zip_longest(*parts, fillvalue=nothing)) if item is not nothing
    ]
