"""Strict models: an unknown key is an error, and an error names file, key, value and the mend."""

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from m2pt.errors import InputError


class Strict(BaseModel):
    """Frozen, refuses unknown keys; what is hashed is the validated value, not what the YAML said."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], value: Mapping[str, Any], source: str) -> Model:
    """Build `model` from `value`; `source` names where the value came from.

    Raises:
        InputError: one line per fault, each with the key's path, the value and what is expected.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = [_fault(model, fault) for fault in error.errors(include_url=False)]
        raise InputError(f"{source}: " + f"\n{source}: ".join(faults)) from None


def _fault(model: type[BaseModel], fault: Any) -> str:
    path: tuple[str | int, ...] = fault["loc"]
    key = ".".join(str(part) for part in path)
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(model, path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        mend = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
        return f"{key}: unknown key; {mend}"
    if fault["type"] == "missing":
        return f"{key}: this key is missing; add it."
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    where = f"{key} = {fault['input']!r}: " if key else ""
    return f"{where}{message[0].lower()}{message[1:]}."


def _known_keys(model: type[Any], path: Sequence[str | int]) -> list[str]:
    """Keys allowed at `path` below `model`, following mappings, unions and dataclasses."""
    candidates: list[Any] = [model]
    for part in path:
        inner: list[Any] = []
        for candidate in candidates:
            fields = _fields(candidate)
            if part in fields:
                inner += _unwrap(fields[str(part)])
            elif not fields:
                inner += [item for argument in get_args(candidate) for item in _unwrap(argument)]
        candidates = inner or candidates
    return sorted({name for candidate in candidates for name in _fields(candidate)})


def _fields(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return {field.name: field.type for field in fields(kind)} if is_dataclass(kind) else {}


def _unwrap(annotation: Any) -> list[Any]:
    if isinstance(annotation, types.UnionType) or str(annotation).startswith(
        ("typing.Union", "typing.Annotated")
    ):
        return [item for argument in get_args(annotation) for item in _unwrap(argument)]
    return [annotation]
