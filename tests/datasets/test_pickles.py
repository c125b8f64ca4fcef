"""Pickles of arrays: read as NumPy writes them, by every protocol; nothing in them runs."""

import bz2
import gzip
import lzma
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m2pt.datasets.pickles import read_pickle
from m2pt.errors import InputError


def write(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def same(left: Any, right: Any) -> bool:
    if isinstance(right, np.ndarray) and right.dtype == object:
        return isinstance(left, list) and all(same(*pair) for pair in zip(left, right, strict=True))
    if isinstance(right, np.ndarray):
        return isinstance(left, np.ndarray) and left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in right)
    if isinstance(right, list | tuple):
        return type(left) is type(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    return bool(left == right)


DRAW = np.random.default_rng(0)
RAGGED = np.empty(2, object)
RAGGED[:] = [DRAW.normal(size=(3, 2)), DRAW.normal(size=(1, 2)).astype(np.float32)]
VALUE = {
    "train": {
        "text": DRAW.normal(size=(2, 3, 4)).astype(np.float32),
        "swapped": np.arange(6, dtype=">i4").reshape(2, 3),
        "columns": np.asfortranarray(DRAW.normal(size=(3, 2))),
        "ragged": RAGGED,
        "list": [np.arange(3), np.arange(2, dtype=np.uint8), np.zeros((0, 5))],
        "labels": [0, 1.5, np.float32(2), np.int64(-3), True],
        "words": ("a", b"\xff\x00", None),
    }
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_gives_what_pickle_gives(protocol: int, tmp_path: Path) -> None:
    read = read_pickle(write(tmp_path / "a.pkl", VALUE, protocol))
    assert same(read, VALUE)
    with pytest.raises(ValueError, match="read-only"):
        read["train"]["text"][0] = 1


@pytest.mark.parametrize(
    ("name", "compress"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)]
)
def test_a_compressed_pickle_is_called_that(name: str, compress: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(compress(pickle.dumps(VALUE)))
    with pytest.raises(InputError, match=rf"a\.pkl is compressed with {name}: decompress it first\."):
        read_pickle(path)


def test_a_code_that_no_pickle_has_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x1e nothing of the kind")
    with pytest.raises(InputError, match="there is no code 30 in pickles, so it is damaged or none"):
        read_pickle(tmp_path / "a.pkl")


def test_python_2_and_numpy_1_are_read(tmp_path: Path) -> None:
    """The bytes that Python 2 writes for {"a": numpy.array([1.5, -2.0])} with protocol 2."""
    data = np.array([1.5, -2.0]).tobytes()
    content = (
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85"
        b"U\x01b\x87Rq\x04(K\x01K\x02\x85cnumpy\ndtype\nq\x05U\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10" + data + b"tbs."
    )
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    assert read_pickle(path)["a"].tolist() == [1.5, -2.0]


class Runs:
    """Starts a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return subprocess.call, (["touch", str(self.path)],)


HARMFUL = {
    "eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'x'\ntR.",
    "numpy.load": b"cnumpy\nload\n(S'x'\ntR.",
    "dotted": b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.dot\x93.",
    "instance": b"(S'x'\nios\nsystem\n.",
}


@pytest.mark.parametrize("name", HARMFUL)
def test_other_names_are_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(HARMFUL[name])
    with pytest.raises(InputError, match=r"a.pkl names \S+\.\S+, which is not part of an array"):
        read_pickle(path)


def test_nothing_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pkl", {"train": Runs(tmp_path / "RAN")})
    with pytest.raises(InputError, match=r"names subprocess\.call, which is not part of an array"):
        read_pickle(path)
    assert not (tmp_path / "RAN").exists()
    with path.open("rb") as file:
        pickle.load(file)  # our own bytes: the exploit does work where allowed
    assert (tmp_path / "RAN").exists(), "it would have"


def repeated(path: Path) -> None:
    array = np.zeros(1000)
    write(path, [array] * 50)


def nested(path: Path) -> None:
    value: list[Any] = []
    for _ in range(40):
        value = [value]
    write(path, value)


def endless(path: Path) -> None:
    value: list[Any] = []
    value.append(value)
    write(path, value)


def truncated(path: Path) -> None:
    write(path, VALUE)
    path.write_bytes(path.read_bytes()[:-30])


FAULTS = {
    "records": (lambda p: write(p, np.zeros(2, "f4,i4")), "type 'V8' are not read"),
    "text": (lambda p: write(p, np.array(["a"])), "type 'U1' are not read"),
    "dates": (lambda p: write(p, np.array(["2020-01-01"], "M8[s]")), "are not read"),
    "two-dimensional objects": (lambda p: write(p, np.full((2, 2), None)), "not a list of one dimension"),
    "a set": (lambda p: write(p, {1, 2}), "holds a value of type set"),
    "an ordered dict": (lambda p: write(p, OrderedDict(a=1)), "names collections.OrderedDict"),
    "repeated": (repeated, "repeats the same values many times"),
    "nested": (nested, "nested deeper than 10 levels"),
    "endless": (endless, "nested deeper than 10 levels"),
    "truncated": (truncated, "cannot be read as a pickle of arrays"),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read as a pickle of arrays"),
    "no pickle": (lambda p: p.write_bytes(b"PK\x03\x04 a zip"), "cannot be read as a pickle of arrays"),
    "huge memo": (lambda p: p.write_bytes(b"Nr\xff\xff\xff\xff0."), "cannot be read as a pickle"),
    "a changed function": (lambda p: p.write_bytes(b"cnumpy\ndtype\n}b."), "it changes a function"),
    "a shape without bytes": (
        lambda p: p.write_bytes(write(p, np.zeros(2)).read_bytes().replace(b"K\x02\x85", b"K\x09\x85")),
        "has 2 values",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_named(name: str, tmp_path: Path) -> None:
    damage, message = FAULTS[name]
    path = tmp_path / "a.pkl"
    damage(path)
    with pytest.raises(InputError) as caught:
        read_pickle(path)
    assert message in str(caught.value) and "a.pkl" in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_plain_values_or_an_error(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(pickle.dumps(VALUE, data.draw(st.sampled_from([0, 2, 4, 5]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    try:
        read = read_pickle(path)
    except InputError as error:
        assert "a.pkl" in str(error)
    else:
        assert plain(read)


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(plain(each) for each in value.values())
    if isinstance(value, list | tuple):
        return all(plain(each) for each in value)
    return value is None or type(value) in (str, bytes, bool, int, float, np.ndarray)
