"""A long read-only list that forked workers share instead of copying."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np


class PackedList(Sequence[Any]):
    """JSON values in one byte buffer, each decoded when it is asked for.

    A Python list of a million paths costs several times its text, and every worker that touches it gets a
    copy of its own, because reading an object writes its reference count.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        encoded = [json.dumps(value, separators=(",", ":")).encode() for value in values]
        self._ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)
        self._buffer = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Decode one value, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start = int(self._ends[position - 1]) if position else 0
        return json.loads(self._buffer[start : int(self._ends[position])])
