"""Strict models: an unknown key is an error, and an error names file, key, value and how to fix it."""

import difflib
import os
import re
import reprlib
import types
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from m2pt.errors import InputError, listed, short
from m2pt.formats.documents import read_yaml

MOST_FAULTS = 20
"""Faults of one file that are written out."""


def _strict(schema: Any, handler: GetCoreSchemaHandler) -> Any:
    """Let integers of a core schema be nothing but integers, and numbers be finite and no booleans.

    YAML reads `1e-3` as a string, so that a number may be one; an integer is never written in that way. The
    schema is changed in place, since those of dataclasses are only referred to.
    """
    if isinstance(schema, list):
        schema[:] = [_strict(part, handler) for part in schema]
    if not isinstance(schema, dict) or schema.get("function") == _NUMBER:
        return schema
    if schema.get("type") in ("int", "bool"):
        schema["strict"] = True
    elif schema.get("type") == "float":
        schema["allow_inf_nan"] = False
        number: Any = schema
        return core_schema.no_info_before_validator_function(_no_boolean, number)
    elif schema.get("type") == "definition-ref":
        with suppress(LookupError):  # a model that refers to itself is not known yet
            target = handler.resolve_ref_schema(schema)
            if target["type"] == "dataclass":  # models see to themselves
                _strict(target, handler)
    else:
        schema.update({key: _strict(value, handler) for key, value in schema.items()})
    return schema


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


_NUMBER = {"type": "no-info", "function": _no_boolean}
"""What marks a number that was seen to already."""


class Strict(BaseModel):
    """Frozen, refuses unknown keys; what is hashed is the validated value, not what the YAML said."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = _strict(handler(source), handler)
        return schema


Model = TypeVar("Model", bound=BaseModel)


def no_duplicates(what: str, names: Iterable[Any]) -> None:
    """Make sure that no name occurs twice; `what` names them in the message.

    Raises:
        ValueError: one does.
    """
    name, count = max(Counter(names).items(), key=itemgetter(1), default=(None, 0))
    if count > 1:
        raise ValueError(f"{what}: duplicate {name!r}; each may be given once")


def validate(model: type[Model], value: Mapping[str, Any], source: str) -> Model:
    """Build `model` from `value`; `source` names where the value came from.

    Raises:
        InputError: one line per fault, each with the key's path, the value and what is expected; of many
            faults the first ones.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = _told_once(error.errors(include_url=False, include_context=False))
        faults = [f"{source}: {_fault(model, fault)}" for fault in found[:MOST_FAULTS]]
        more = len(found) - len(faults)
        raise InputError(
            "\n".join([*faults, *([f"{source}: and {more} more faults."] if more else [])])
        ) from None


def read_part(model: type[Model], path: str, source: str) -> Model:
    """Build `model` from the YAML file at `path`, which the config `source` names.

    Raises:
        InputError: there is no such file; or as `read_yaml` and `validate`.
    """
    if not os.path.isfile(path):  # noqa: PTH113  # a Path raises for a name that is too long
        raise InputError(f"{source}: names {short(path)}, which cannot be read; give the path of a file.")
    return validate(model, read_yaml(Path(path)), path)


def _told_once(faults: list[Any]) -> list[Any]:
    """Leave out that a list is empty where that is so because of what is wrong with its items."""
    above = {fault["loc"][:length] for fault in faults for length in range(len(fault["loc"]))}
    return [fault for fault in faults if fault["type"] != "too_short" or fault["loc"] not in above]


_PLAINER = (
    (r"^(Input|String|Tuple|Dictionary|Value|Data) should ", "must "),
    (r"\ba valid tuple\b", "a list"),
    (r"\ba valid dictionary\b.*", "a mapping"),
    (r"\ba valid (integer|number|string)\b", r"a \1"),
    ("a integer", "an integer"),
    ("a valid boolean", "true or false"),
    (" after validation, not .*", ""),
    ("greater than or equal to", ">="),
    ("less than or equal to", "<="),
    ("greater than", ">"),
    ("less than", "<"),
)
"""Pydantic's words and what people who write YAML say."""


def _fault(model: type[BaseModel], fault: Any) -> str:
    path: tuple[str | int, ...] = tuple(
        short(part, 60) if isinstance(part, str) else part for part in fault["loc"]
    )
    key = _line(".".join(str(part) for part in path))
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(model, path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {listed(known)}."
        return f"{key}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{key}: this key is missing; add it."
    message = _line(fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, "))
    if fault["type"] != "value_error":
        for theirs, ours in _PLAINER:
            message = re.sub(theirs, ours, message)
    where = f"{key} = {reprlib.repr(fault['input'])}: " if key else ""
    return f"{where}{message[:1].lower()}{message[1:]}."


def _line(text: str) -> str:
    """At most a few hundred characters on one line."""
    return short(" ".join(text[:5000].split()), 600)


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
