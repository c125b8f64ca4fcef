"""YAML and JSON from disk: whatever the bytes, the answer is plain values or one `InputError`.

Every document that the project reads comes through here: configs and what they name (`read_yaml`), records
that our own commands have written (`read_json`), and the lists of datasets (`read_listing`).
"""

import json
import math
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from m2pt.errors import InputError

LARGEST_CONFIG = 1 << 20
"""Bytes. A YAML file of a person's is a hundredth of this; PyYAML needs ten seconds for it."""

LARGEST_RECORD = 64 << 20
"""Bytes of a JSON file of ours; the largest by far lists the cells of every run."""

DEEPEST = 50
"""Levels of nesting in a YAML file."""

LARGEST_EXPANSION = 200_000
"""Values in a YAML file with every alias written out: a few lines of them can stand for a billion."""


def read_bytes(path: Path, *, limit: int | None = None) -> bytes:
    """Return the content of a regular file.

    Raises:
        InputError: it is missing, may not be read, is a folder, pipe or device, or has over `limit` bytes.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
            raise InputError(f"{path}: is {kind}; give the path of a file.")
        with path.open("rb") as file:
            content = file.read() if limit is None else file.read(limit + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give the path of a readable file."
        ) from None
    except ValueError as error:  # a null byte in the path
        raise InputError(f"{str(path)!r}: not a path ({error}).") from None
    if limit is not None and len(content) > limit:
        raise InputError(f"{path}: larger than {limit / 2**20:.0f} MiB, so it is not the file it should be.")
    return content


# ---- YAML --------------------------------------------------------------------------------------------------


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        InputError: the file is missing, is not YAML, repeats a key, has a key that is not a string, is nested
            or aliased beyond reason, or holds no mapping.
    """
    value = parse_yaml(_text(read_bytes(path, limit=LARGEST_CONFIG), str(path)), str(path))
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {_kind(value)}, not a mapping of keys to values.")
    return value


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of a YAML text; `source` names where it came from.

    Raises:
        InputError: as for `read_yaml`; any value is accepted.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise InputError(f"{source}{where}: not valid YAML: {problem}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{source}: not valid YAML: {' '.join(str(error).split())}.") from None
    except (ValueError, OverflowError) as error:  # a date such as 2026-13-45, a number of 5,000 digits
        raise InputError(f"{source}: a value cannot be read: {error}; put it in quotes.") from None


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

    def construct_document(self, node: yaml.Node) -> Any:
        if _expansion(node, {}) > LARGEST_EXPANSION:
            _refuse(node.start_mark, f"its aliases stand for more than {LARGEST_EXPANSION} values")
        return super().construct_document(node)  # type: ignore[no-untyped-call]

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)  # type: ignore[no-untyped-call]
        if isinstance(value, str) and not _is_text(value):
            _refuse(node.start_mark, "a null byte or half of a surrogate pair in a string")
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, str):
                _refuse(key_node.start_mark, f"the key {_shown(key)} is not a string; put it in quotes")
            if key in seen:
                _refuse(key_node.start_mark, f"duplicate key {_shown(key)}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refuse(mark: yaml.Mark, problem: str) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, mark)


def _expansion(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of values below a node with every alias written out; infinite if it contains itself."""
    if id(node) not in known:
        known[id(node)] = LARGEST_EXPANSION + 1  # as long as it is not known: it contains itself
        children: Iterable[yaml.Node] = ()
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = (child for pair in node.value for child in pair)
        known[id(node)] = 1 + sum(_expansion(child, known) for child in children)
    return known[id(node)]


# ---- JSON --------------------------------------------------------------------------------------------------


def read_json(path: Path, *, limit: int = LARGEST_RECORD) -> Any:
    """Return the value in a JSON file of ours.

    Raises:
        InputError: the file is missing, too large or not JSON, repeats a key, or holds NaN or infinity.
    """
    return parse_json(read_bytes(path, limit=limit), str(path))


def parse_json(content: bytes | str, source: str) -> Any:
    """Return the value of a JSON text of ours; `source` names where it came from.

    Raises:
        InputError: as for `read_json`.
    """
    return _parse_json(
        content, source, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique
    )


def read_listing(path: Path) -> Any:
    """Return the value in a JSON file of a dataset, which may be large, repeat keys and hold NaN.

    Raises:
        InputError: the file is missing or not JSON.
    """
    return _parse_json(read_bytes(path), str(path))


def _parse_json(content: bytes | str, source: str, **hooks: Any) -> Any:
    text = _text(content, source) if isinstance(content, bytes) else content
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}, line {error.lineno}: not valid JSON: {error.msg}.") from None
    except ValueError as error:
        raise InputError(f"{source}: not valid JSON: {error}.") from None
    except RecursionError:
        raise InputError(f"{source}: not valid JSON: nested too deeply.") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits[:40]} is out of range")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {_shown(next(key for key in keys if keys.count(key) > 1))}")
    if not all(_is_text(text) for pair in pairs for text in pair if isinstance(text, str)):
        raise ValueError("a null byte or half of a surrogate pair in a string")
    return mapping


# ---- text --------------------------------------------------------------------------------------------------


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{source}, line {line}: not UTF-8 text ({error.reason}).") from None


def _is_text(value: str) -> bool:
    """Whether a string can be written, printed and used in a path."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
