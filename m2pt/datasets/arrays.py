"""Rows of large `.npy` files: mapped into memory, never unpickled, the same for readers and checks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2pt.datasets.reading import reading, regular_file
from m2pt.errors import InputError

LARGEST = float(np.finfo(np.float32).max)

BLOCK = 1 << 22
"""Values that `blocks` reads at a time."""


class MappedArray:
    """A `.npy` file of real numbers whose rows are read on access.

    The file is opened in each process that reads rows: a pickled copy, as a spawned worker gets, holds no
    values.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing, truncated, pickled or not an array of real numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        array = self._map()
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self._array: NDArray[Any] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice) -> NDArray[Any]:
        """Return rows as stored, a view of the mapped file."""
        if self._array is None:
            self._array = np.asarray(self._map())  # slices of a memmap are slow
        return self._array[rows]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}

    def _map(self) -> NDArray[Any]:
        with reading(regular_file(self.path), "an array"):
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise InputError(f"{self.path} is an archive of arrays, not one array in .npy.")
        if not (array.ndim and _is_real(array.dtype)):
            raise InputError(
                f"{self.path} must be an array of real numbers, got {array.dtype} of shape {array.shape}."
            )
        return array


def as_floats(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return a copy of values in float32."""
    return np.array(values, np.float32)


def value_problem(array: MappedArray) -> str | None:
    """Return a problem if a value is not finite in float32; reads the file in blocks."""
    if not np.issubdtype(array.dtype, np.floating):
        return None
    found = (rows_problem(array.path, rows, start) for start, rows in blocks(array))
    return next((problem for problem in found if problem), None)


def blocks(array: MappedArray) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield all rows in blocks of about `BLOCK` values, each with the number of its first row."""
    rows = max(1, BLOCK // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def rows_problem(path: Path, rows: NDArray[Any], start: int) -> str | None:
    """Return a problem if one of `rows`, the first of which is row `start` of the file, is not finite."""
    if not np.issubdtype(rows.dtype, np.floating):
        return None
    flat = rows.reshape(len(rows), -1)
    with np.errstate(invalid="ignore"):
        sound = (np.abs(flat) <= LARGEST).all(axis=1)  # False for NaN
    if sound.all():
        return None
    row = start + int(np.flatnonzero(~sound)[0])
    return f"{path} row {row} has values that are infinite, NaN or too large."


def read_labels(path: Path, num_classes: int) -> NDArray[np.int64]:
    """Return the labels (n,) of a `.npy` file of shape (n,) or (n, 1); floats must be whole numbers.

    Raises:
        InputError: as for `MappedArray`, or a label is not one of 0 to num_classes - 1.
    """
    array = MappedArray(path)
    if array.shape not in ((len(array),), (len(array), 1)):
        raise InputError(f"{path} must have one label per row, got an array of shape {array.shape}.")
    stored = array[:].reshape(-1)
    wrong = ~((stored >= 0) & (stored < num_classes) & (stored == np.floor(stored)))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{path} row {row} has the label {stored[row]}, which must be one of 0 to {num_classes - 1}."
        )
    return stored.astype(np.int64)


def _is_real(dtype: np.dtype[Any]) -> bool:
    return np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating)
