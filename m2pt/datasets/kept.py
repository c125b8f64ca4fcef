"""Tensors that are read once and kept in memory, for files whose decoding costs more than their size."""

from collections.abc import Callable

from torch import Tensor

LIMIT_BYTES = 64 * 2**20
"""Memory of one `KeptTensors`: enough for a miniature, and little beside a worker of a large dataset."""


class KeptTensors:
    """The tensors of a function by its argument, the first of them kept until their limit is reached.

    What is kept stays: with every epoch in another order, replacing the oldest would save no more.

    Args:
        read: makes the tensor of a key; the same key always has the same tensor.
        limit_bytes: bound on the memory of all kept tensors.
    """

    def __init__(self, read: Callable[[str], Tensor], limit_bytes: int = LIMIT_BYTES) -> None:
        self._read = read
        self._free_bytes = limit_bytes
        self._kept: dict[str, Tensor] = {}

    def __call__(self, key: str) -> Tensor:
        """Return the tensor of a key, each time a new copy. Errors of `read` are passed on."""
        if (kept := self._kept.get(key)) is not None:
            return kept.clone()
        tensor = self._read(key)
        if tensor.nbytes <= self._free_bytes:
            self._kept[key] = tensor.clone()
            self._free_bytes -= tensor.nbytes
        return tensor
