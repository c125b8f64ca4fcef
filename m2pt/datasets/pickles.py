"""Pickles of arrays and plain containers, read without running or constructing what they name.

Unpickling calls whatever a file names. Here a pickle may name only what NumPy writes for arrays and scalars,
and even these are replaced by stand-ins that check their arguments, since NumPy's own trust theirs. Files of
Python 2 and 3 and of NumPy 1 and 2 can be read.
"""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2pt.datasets.reading import reading
from m2pt.errors import InputError
from m2pt.formats.documents import open_binary

DEEPEST = 10
"""Levels of containers in each other."""

COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes of compressed files, with which no pickle begins."""

NUMBERS = {f"{kind}{size}" for size in (1, 2, 4, 8) for kind in "iu"} | {"f2", "f4", "f8", "b1"}
"""NumPy's names of the types of numbers that are read."""


def read_pickle(path: Path) -> Any:
    """Return the content of a pickle: dicts, lists, tuples, text, numbers, and arrays of numbers, read-only.

    An array of objects becomes a list.

    Raises:
        InputError: the file is missing, damaged, compressed, not a pickle, or names anything but arrays and
            scalars; it holds other types, or more values than the file has bytes for.
    """
    with open_binary(path) as file, reading(path, "a pickle of arrays"):
        start = file.peek(8)
        for magic, name in COMPRESSIONS.items():
            if start.startswith(magic):
                raise InputError(f"{path} is compressed with {name}: decompress it first.")
        size = path.stat().st_size
        return _Plain(size).value(_Unpickler(file, path).load())


class _Dtype:
    """Stands for `numpy.dtype`; `__setstate__` receives the byte order."""

    def __init__(self, name: str, *flags: object) -> None:
        if not isinstance(name, str) or name not in {*NUMBERS, "O8", "O"}:
            raise ValueError(f"arrays of type {name!r} are not read, only of numbers")
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        _, order, *fields = state
        if order not in ("<", ">", "|", "=") or any(field is not None for field in fields[:3]):
            raise ValueError("arrays of records are not read, only of numbers")
        self.order = order

    @property
    def is_object(self) -> bool:
        return self.name.startswith("O")

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.name).newbyteorder(self.order)  # type: ignore[arg-type]


class _Array:
    """Stands for an array; `__setstate__` receives what it consists of."""

    def __init__(self) -> None:
        self.content: NDArray[Any] | list[Any] = []

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.content = _array(data, dtype, shape, "F" if fortran else "C")


class _Name:
    """Stands for a function or class that a pickle may name; calls are those of the stand-in."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes a function")


def _array(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any] | list[Any]:
    """Return the array of the given bytes, or the list of objects of a one-dimensional array of them."""
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
        raise ValueError("an array has no type or no shape")
    if any(type(side) is not int or side < 0 for side in shape) or len(shape) > 8:
        raise ValueError(f"an array has the shape {shape}")
    if dtype.is_object:
        if not isinstance(data, list) or shape != (len(data),):
            raise ValueError("an array of objects is not a list of one dimension")
        return data
    content = data.encode("latin1") if isinstance(data, str) else data  # Python 2's bytes
    if not isinstance(content, bytes | bytearray | memoryview):
        raise ValueError("an array has no bytes")
    values = np.frombuffer(content, dtype.numpy()) if len(content) else np.empty(0, dtype.numpy())
    if len(values) != math.prod(shape):
        raise ValueError(f"an array of shape {shape} has {len(values)} values")
    values.flags.writeable = False
    return values.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(subtype: Any, shape: Any, name: Any) -> _Array:
    return _Array()


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, *axes: Any) -> _Array:
    array = _Array()
    array.content = _array(buffer, dtype, shape, order)
    return array


def _scalar(dtype: Any, data: Any = b"") -> Any:
    content = _array(data, dtype, (1,), "C")
    if isinstance(content, list):
        raise ValueError("a scalar is an object")
    return content[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    """Return the bytes that protocol 2 stores as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"text is encoded as {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Return empty bytes, which protocol 2 stores as a call."""
    return b""


def _type_only(*arguments: Any) -> Any:
    raise ValueError("it constructs an array itself")


_STAND_INS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
    "numpy.ndarray": _type_only,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
}
"""What a pickle may name."""


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Python's own unpickler, not the one in C: a damaged memo index makes that one allocate gigabytes."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def load(self) -> Any:
        """Return the content, with stand-ins.

        Raises:
            ValueError: a byte is none of the codes of pickles; or what a damaged pickle leads to.
        """
        try:
            return super().load()
        except KeyError as error:
            raise ValueError(f"there is no code {error} in pickles, so it is damaged or none") from None

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name.

        Raises:
            InputError: there is none.
        """
        stand_in = _STAND_INS.get(f"{module}.{name}")
        if stand_in is None:
            raise InputError(
                f"{self._path} names {module}.{name}, which is not part of an array: the file would run code "
                "or hold objects; write it again as NumPy arrays in dicts and lists."
            )
        return _Name(stand_in)


class _Plain:
    """Replaces stand-ins by arrays, in a pickle of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._room = size

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a value with the arrays in it.

        Raises:
            ValueError: it has too many levels, other types, or arrays repeated beyond the file's size.
        """
        if depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")
        if isinstance(value, _Array):
            value = value.content
        if isinstance(value, np.ndarray):
            self._take(value.nbytes)
            return value
        if isinstance(value, dict):
            return {self.value(key, depth + 1): self.value(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple):
            self._take(len(value))
            return type(value)(self.value(each, depth + 1) for each in value)
        if value is None or isinstance(value, str | bytes | bool | int | float):
            return value
        raise ValueError(f"it holds a value of type {type(value).__name__.strip('_').lower()}")

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise ValueError("it repeats the same values many times")
