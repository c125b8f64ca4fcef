"""Strict, bounded reading of YAML and JSON: any input gives plain values or an `InputError`.

All documents are read here: configs and the files that they name (`read_yaml`), records written by our own
commands (`read_json`), and annotation files of datasets (`read_listing`).
"""

import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import yaml

from m2pt.errors import InputError, short

LARGEST_CONFIG = 256 << 10
"""Bytes. Hand-written YAML has a tenth of this; PyYAML takes seconds for it."""

LARGEST_RECORD = 8 << 20
"""Bytes of a JSON file of ours; the largest by far lists the cells of every run."""

LARGEST_LISTING = 4 << 30
"""Bytes of a dataset's JSON file; COCO's annotations have half a gigabyte."""

DEEPEST = 50
"""Levels of nesting in YAML (with aliases expanded) and in JSON files of ours."""

LARGEST_EXPANSION = 100_000
"""Values in a YAML file with all aliases expanded: a few lines of aliases can expand to a billion."""

LARGEST_INTEGER = 2**63 - 1


def read_bytes(path: Path, *, limit: int | None = None) -> bytes:
    """Return the content of a regular file.

    Raises:
        InputError: it is missing or unreadable, a folder, pipe or device, or larger than `limit` bytes.
    """
    with open_binary(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise InputError(
                f"{path}: larger than {limit >> 10:,} KiB, too large for a file of this kind; check the path."
            )
        return file.read() if limit is None else file.read(limit)


@contextmanager
def open_binary(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading.

    Raises:
        InputError: it is missing or unreadable, or a folder, pipe or device.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
            raise InputError(f"{path}: is {kind}; give the path of a file.")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give the path of a readable file."
        ) from None
    except ValueError as error:  # a null byte in the path
        raise InputError(f"{str(path)!r}: not a path ({error}).") from None


def read_text(path: Path, *, limit: int = LARGEST_RECORD) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        InputError: as for `read_bytes`, or it is not UTF-8.
    """
    return _text(read_bytes(path, limit=limit), str(path))


# ---- YAML --------------------------------------------------------------------------------------------------


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file of strings, numbers, booleans, null, lists and mappings.

    Raises:
        InputError: the file is missing or not YAML, has a tag, a date, a duplicate key, a key that is not a
            string, too deep nesting or too many aliases, or does not contain a mapping.
    """
    value = parse_yaml(read_text(path, limit=LARGEST_CONFIG), str(path))
    if not isinstance(value, dict):
        raise InputError(f"{path}: contains {_describe(value)}; it must be a mapping of keys to values.")
    return value


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of a YAML text; `source` says in messages where it comes from.

    Raises:
        InputError: as for `read_yaml`, except that the value need not be a mapping.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(
            f"{source}{where}: not valid YAML: {_one_line(error.problem or error.context)}."
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"{source}: not valid YAML: {_one_line(error)}.") from None
    except ValueError as error:  # "\U00110000", a %YAML directive of 5,000 digits
        raise InputError(f"{source}: not valid YAML: {_one_line(error)}.") from None


_TAG = "tag:yaml.org,2002:"
_PLAIN = {f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}
_MERGE = f"{_TAG}merge"
_IN_ANOTHER_BASE = re.compile(r"[-+]?(0[0-7_]+$|.*:)")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, strict and bounded."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            _refuse(self.peek_event().start_mark, f"nested deeper than {DEEPEST} levels")  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        self._depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)  # type: ignore[no-untyped-call]
        if not _is_text(node.value):
            _refuse(node.start_mark, "a string contains a null byte or half of a surrogate pair")
        if node.tag in (f"{_TAG}int", f"{_TAG}float") and _IN_ANOTHER_BASE.match(node.value):
            _refuse(
                node.start_mark,
                f"{_quote(node.value)} would be read as an octal or base-60 number; put it in quotes",
            )
        return _plain(node)

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        return _plain(super().compose_sequence_node(anchor))  # type: ignore[no-untyped-call]

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = _plain(super().compose_mapping_node(anchor))  # type: ignore[no-untyped-call]
        seen = set()
        for key, _ in node.value:
            if key.tag not in (f"{_TAG}str", _MERGE):
                what = key.value if isinstance(key, yaml.ScalarNode) else "[...]"
                _refuse(key.start_mark, f"the key {_quote(what)} is not a string; put it in quotes")
            if key.value in seen:
                _refuse(key.start_mark, f"duplicate key {_quote(key.value)}")
            seen.add(key.value)
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        values, levels = _measure(node, {})
        if values > LARGEST_EXPANSION:
            _refuse(node.start_mark, f"more than {LARGEST_EXPANSION:,} values with its aliases expanded")
        if levels > DEEPEST:
            _refuse(node.start_mark, f"nested deeper than {DEEPEST} levels with its aliases expanded")
        return super().construct_document(node)  # type: ignore[no-untyped-call]

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)  # type: ignore[no-untyped-call]
        except (ValueError, LookupError):  # an explicit tag such as !!int x, or too many digits
            kind = _quote(node.tag.removeprefix(_TAG))
            _refuse(node.start_mark, f"{_quote(node.value)} cannot be read as a value of kind {kind}")
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            _refuse(node.start_mark, f"the number {_quote(node.value)} is out of range")
        return value


def _plain(node: Any) -> Any:
    """Return the node if its tag is one of plain data, else raise."""
    if node.tag not in _PLAIN and not (node.tag == _MERGE and isinstance(node, yaml.ScalarNode)):
        kind = _quote(node.tag.removeprefix(_TAG))
        if isinstance(node, yaml.ScalarNode):
            _refuse(
                node.start_mark, f"{_quote(node.value)} is read as a value of kind {kind}; put it in quotes"
            )
        _refuse(node.start_mark, f"values of kind {kind} are not supported; remove the tag")
    return node


def _refuse(mark: yaml.Mark, problem: str) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, mark)


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Count the values and levels of a node with all aliases expanded; too many if it contains itself."""
    if id(node) not in known:
        known[id(node)] = LARGEST_EXPANSION + 1, 1  # found during recursion only if the node contains itself
        children: Iterable[yaml.Node] = ()
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = (child for pair in node.value for child in pair)
        sizes = [_measure(child, known) for child in children]
        values = 1 + sum(size[0] for size in sizes)
        known[id(node)] = min(values, LARGEST_EXPANSION + 1), 1 + max((size[1] for size in sizes), default=0)
    return known[id(node)]


# ---- JSON --------------------------------------------------------------------------------------------------


def read_json(path: Path, *, limit: int = LARGEST_RECORD) -> Any:
    """Return the value in a JSON file of ours.

    Raises:
        InputError: the file is missing, too large or not JSON, is nested too deeply, or contains a duplicate
            key, NaN, infinity, an integer beyond 64 bits or a null byte.
    """
    return parse_json(read_bytes(path, limit=limit), str(path))


def parse_json(content: bytes | str, source: str, *, finite: bool = True) -> Any:
    """Return the value of a JSON text of ours; `source` says in messages where it comes from.

    NaN and infinity are errors unless `finite` is False.

    Raises:
        InputError: as for `read_json`.
    """
    value = _parse_json(
        content,
        source,
        parse_constant=_no_constant if finite else None,
        parse_float=_finite if finite else None,
        parse_int=_integer,
        object_pairs_hook=_unique,
    )
    for depth, level in enumerate(_levels(value)):
        if depth == DEEPEST:
            raise InputError(f"{source}: not valid JSON: nested deeper than {DEEPEST} levels.")
        if not all(_is_text(part) for part in level if isinstance(part, str)):
            raise InputError(f"{source}: a string contains a null byte or half of a surrogate pair.")
    return value


def read_listing(path: Path) -> Any:
    """Return the value in a JSON file of a dataset, which may be large and contain duplicate keys and NaN.

    Raises:
        InputError: the file is missing, too large or not JSON.
    """
    return _parse_json(read_bytes(path, limit=LARGEST_LISTING), str(path))


def _parse_json(content: bytes | str, source: str, **hooks: Any) -> Any:
    text = _text(content, source) if isinstance(content, bytes) else content
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        where = f", line {error.lineno}" if "\n" in text else ""
        raise InputError(f"{source}{where}: not valid JSON: {error.msg}.") from None
    except ValueError as error:
        raise InputError(f"{source}: not valid JSON: {_one_line(error)}.") from None
    except RecursionError:
        raise InputError(f"{source}: not valid JSON: nested too deeply.") from None
    except MemoryError:
        raise InputError(f"{source}: does not fit into memory.") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"the number {_quote(digits)} is out of range")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(value := int(digits)) > LARGEST_INTEGER:
        raise ValueError(f"the number {_quote(digits)} is out of range")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        repeated, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"duplicate key {_quote(repeated)}")
    return mapping


def _levels(value: Any) -> Iterator[list[Any]]:
    """Yield the value, then all keys and values in it, then all in these, level by level."""
    level = [value]
    while level:
        yield level
        level = [child for part in level for child in _children(part)]


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return chain(value, value.values())
    return value if isinstance(value, list) else ()


# ---- text --------------------------------------------------------------------------------------------------


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{source}, line {line}: not UTF-8 text ({error.reason}).") from None


_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


def _is_text(value: str) -> bool:
    """Return whether a string can be encoded, printed and used in a path."""
    return _NOT_TEXT.search(value) is None


def _quote(text: str) -> str:
    return short(repr(text[:100]), 60)


def _one_line(message: object) -> str:
    return short(" ".join(str(message)[:1000].split()), 200)


def _describe(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
