"""Sums and means over the processes that train together."""

from torch import Tensor, distributed


def processes() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of a detached tensor over all processes; in a single process the tensor itself."""
    if processes() == 1:
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total


def mean_over_processes(tensor: Tensor) -> Tensor:
    """Return the mean of a detached tensor over all processes; in a single process the tensor itself."""
    count = processes()
    return tensor if count == 1 else sum_over_processes(tensor) / count
