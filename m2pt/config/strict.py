"""Strict models: an unknown key is an error, and an error names file, key, value and how to fix it."""

import difflib
import os
import re
import reprlib
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from m2pt.config.faults import Entry, Faults
from m2pt.errors import MOST_FAULTS, InputError, joined, listed, short
from m2pt.formats.documents import read_yaml


def _strict(schema: Any, handler: GetCoreSchemaHandler) -> Any:
    """Make the integers of a core schema strict, and let its numbers be neither infinite, NaN nor booleans.

    YAML reads `1e-3` as a string, so a number may be a string; an integer may not. The
    schema is changed in place, since schemas of dataclasses are only referenced.
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
        with suppress(LookupError):  # the schema of a recursive model does not exist yet
            target = handler.resolve_ref_schema(schema)
            if target["type"] == "dataclass":  # a model's schema is made strict by the model
                _strict(target, handler)
    else:
        schema.update({key: _strict(value, handler) for key, value in schema.items()})
    return schema


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


_NUMBER = {"type": "no-info", "function": _no_boolean}
"""Marks a number with a schema that is already strict."""


class Strict(BaseModel):
    """Base of all sections: frozen, unknown keys are errors.

    Digests are computed from the validated values, not from the text of the YAML.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = _strict(handler(source), handler)
        return schema


class Extended(Strict):
    """A section that got optional keys after digests of it were stored: empty ones are not in its dump."""

    added: ClassVar[tuple[str, ...]]
    """Keys that are omitted if they are empty."""

    @model_serializer(mode="wrap")
    def _omit_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        return {name: value for name, value in values.items() if value or name not in self.added}


Model = TypeVar("Model", bound=BaseModel)


def no_duplicates(what: str, names: Iterable[Any]) -> None:
    """Make sure that no name is repeated; `what` describes the names in the message.

    Raises:
        ValueError: a name is repeated.
    """
    name, count = max(Counter(names).items(), key=itemgetter(1), default=(None, 0))
    if count > 1:
        raise ValueError(f"{what}: duplicate {name!r}; each may be given once")


def nested(model: type[Model], value: Mapping[str, Any]) -> Model:
    """Build `model` inside a validator, so that `validate` reports each error with its own key.

    Raises:
        PydanticCustomError: `value` is invalid; the error holds the details.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        context: dict[str, Any] = {"model": model, "faults": error.errors(include_url=False)}
        raise PydanticCustomError("nested", "is invalid", context) from None


def validate(model: type[Model], value: Mapping[str, Any], source: str) -> Model:
    """Build `model` from `value`; `source` names where the value came from.

    Raises:
        InputError: one line per error with the key's path, the value and what is expected, for the first
            `MOST_FAULTS` errors.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _refusal(_faults(model, error), source) from None


def validate_rest(
    model: type[Model],
    value: Mapping[str, Any],
    source: str,
    faults: Faults,
    *,
    stand_in: Callable[[Entry, Any], Any],
) -> Model:
    """Build `model` from what is valid in `value`, and note the faults of the rest.

    What is faulty, a key or a name in a mapping, is replaced by its stand-in or left out.

    Args:
        model: the class to build.
        value: what it is built from.
        source: where the value came from.
        faults: takes the faults, which spoil what was faulty.
        stand_in: returns what replaces an entry, given its value; None to leave it out.

    Raises:
        InputError: as for `validate`, if nothing can be built.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = _faults(model, error)
    refusal, spoiled, rest = _refusal(found, source), set[Entry](), value
    for replacement in (stand_in, _nothing):  # a stand-in may be faulty too
        entries = {_entry(model, rest, fault.path) for fault in found}
        rest = _replaced(rest, entries, replacement)
        spoiled |= entries
        try:
            built = model.model_validate(rest)
        except ValidationError as error:
            found = _faults(model, error)
        else:
            faults.add(refusal, *spoiled)
            return built
    raise refusal


def _nothing(entry: Entry, given: Any) -> None:
    """Replace nothing: the entry is left out."""


def _replaced(
    value: Mapping[str, Any], entries: Iterable[Entry], stand_in: Callable[[Entry, Any], Any]
) -> dict[str, Any]:
    """Return a document with stand-ins for some entries, and without those that have none."""
    rest: dict[str, Any] = {
        key: dict(each) if isinstance(each, Mapping) else each for key, each in value.items()
    }
    for key, name in sorted(entries, key=lambda entry: not entry[1]):  # whole sections last
        section, place = (rest[key], name) if name else (rest, key)
        new = stand_in((key, name), section.get(place))
        if new is None:
            section.pop(place, None)
        else:
            section[place] = new
    return rest


def _entry(model: type[BaseModel], value: Mapping[str, Any], path: Sequence[int | str]) -> Entry:
    """Return the smallest part of a value that can be left out to be rid of the fault at this path."""
    key, name = ([str(part) for part in path] + ["", ""])[:2]
    is_mapping = key in model.model_fields and get_origin(model.model_fields[key].annotation) is dict
    return (key, name) if is_mapping and isinstance(value.get(key), Mapping) else (key, "")


def read_part(model: type[Model], path: str, source: str) -> Model:
    """Build `model` from the YAML file at `path`, which the config `source` names.

    Raises:
        InputError: there is no such file; or see `read_yaml` and `validate`.
    """
    if not os.path.isfile(path):  # noqa: PTH113  # Path.is_file raises for a name that is too long
        raise InputError(f"{source}: names {short(path)}, which cannot be read; give the path of a file.")
    return validate(model, read_yaml(Path(path)), path)


class _Fault(NamedTuple):
    """An error from pydantic: `path` leads to it from the outermost model, `below` from `model`."""

    model: type[BaseModel]
    below: tuple[int | str, ...]
    path: tuple[int | str, ...]
    details: Any


def _faults(model: type[BaseModel], error: ValidationError) -> list[_Fault]:
    return _told_once(list(_flat(model, error.errors(include_url=False))))


def _refusal(faults: Sequence[_Fault], source: str) -> InputError:
    told = [InputError(f"{source}: {_message(fault)}") for fault in faults[:MOST_FAULTS]]
    return joined(told, untold=len(faults) - len(told))


def _flat(
    model: type[BaseModel], faults: Iterable[Any], above: tuple[int | str, ...] = ()
) -> Iterator[_Fault]:
    """Yield the errors of a model, and those of `nested` models in their place."""
    for each in faults:
        path = (*above, *each["loc"])
        if each["type"] == "nested":
            yield from _flat(each["ctx"]["model"], each["ctx"]["faults"], path)
        else:
            yield _Fault(model, each["loc"], path, each)


def _told_once(faults: list[_Fault]) -> list[_Fault]:
    """Drop the error that a list is too short if only invalid items make it so."""
    above = {fault.path[:length] for fault in faults for length in range(len(fault.path))}
    return [fault for fault in faults if fault.details["type"] != "too_short" or fault.path not in above]


_PLAINER = (
    (r"^(Input|String|Tuple|Dictionary|Value|Data) should ", "must "),
    (r"\ba valid tuple\b", "a list"),
    (r"\ba (valid )?dictionary\b.*", "a mapping"),
    (r"\ba valid (integer|number|string)\b", r"a \1"),
    ("a integer", "an integer"),
    ("a valid boolean", "true or false"),
    (" after validation, not .*", ""),
    ("greater than or equal to", ">="),
    ("less than or equal to", "<="),
    ("greater than", ">"),
    ("less than", "<"),
)
"""pydantic's terms, and the YAML terms that replace them."""


def _message(fault: _Fault) -> str:
    kind, details = fault.details["type"], fault.details
    path = [short(part, 60) if isinstance(part, str) else part for part in fault.path]
    key = _line(".".join(str(part) for part in path))
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(fault.model, fault.below[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {listed(known)}."
        return f"{key}: unknown key; {hint}"
    if kind in ("missing", "missing_keyword_only_argument"):
        return f"{key}: this key is missing; add it."
    message = _line(details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, "))
    if kind != "value_error":
        for theirs, ours in _PLAINER:
            message = re.sub(theirs, ours, message)
    where = f"{key} = {reprlib.repr(details['input'])}: " if key else ""
    return f"{where}{as_sentence(message)}"


def as_sentence(fault: str) -> str:
    """Return a fault as it stands behind a colon in a message."""
    return f"{fault[:1].lower()}{fault[1:]}{'' if fault.endswith('?') else '.'}"


def _line(text: str) -> str:
    """Return the text on one line, cut to a few hundred characters."""
    return short(" ".join(text[:5000].split()), 600)


def _known_keys(model: type[Any], path: Sequence[str | int]) -> list[str]:
    """Return the keys allowed at `path` below `model`, following mappings, unions and dataclasses."""
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
