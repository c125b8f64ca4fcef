"""The names of entries of the catalog, and the import of what entries name."""

import difflib
import keyword
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from m2pt.errors import InputError, listed, short

Base = TypeVar("Base")

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?")
_INTERNAL = re.compile(r"[/\\](torch|pydantic)[/\\]|importlib|<frozen")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that is not among `known`."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {listed(names)}"
    return f"there is no {kind} {short(name, 100)!r}; {hint}"


def place_of(error: BaseException) -> str:
    """Return an error of a module that an entry names, with the last line outside of torch and pydantic."""
    frames = traceback.extract_tb(error.__traceback__)
    named = [frame for frame in frames if not _INTERNAL.search(frame.filename)]
    place = f" ({named[-1].filename}, line {named[-1].lineno})" if named else ""
    return f"{type(error).__name__}: {error}{place}"


def load(path: str, owner: str) -> Any:
    """Import what an entry names.

    Args:
        path: "package.module:Name", or "package.module" for a module.
        owner: the entry and its field, for messages, such as "modality depth: tokenizer".

    Raises:
        InputError: the path has another form, the module cannot be imported, or it has no such name.
    """
    if not (isinstance(path, str) and _PATH.fullmatch(path)):
        raise InputError(
            f"{owner}: must be 'package.module:Name' or 'package.module', got {short(repr(path))}"
        )
    module_name, _, name = path.partition(":")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:  # the module may be anybody's
        raise InputError(f"{owner}: {module_name} cannot be imported: {place_of(error)}") from error
    if name and not hasattr(module, name):
        near = difflib.get_close_matches(name, dir(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{owner}: {module_name} has no {name!r}{hint}")
    return getattr(module, name) if name else module


def load_class(path: str, owner: str, base: type[Base]) -> type[Base]:
    """Import a class that an entry names; see `load`.

    Raises:
        InputError: it cannot be imported, or is no subclass of `base`.
    """
    found = load(path, owner)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{owner}: {path} must be a subclass of {base.__module__}.{base.__qualname__}")
    return found


@contextmanager
def naming(owner: str) -> Iterator[None]:
    """Run code of a module that an entry names, and name the entry in whatever it raises.

    Raises:
        InputError: any exception, with its place; InputErrors stay as they are.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the module may be anybody's
        raise InputError(f"{owner}: {place_of(error)}") from error


def check_name(what: str, name: Any) -> None:
    """Check the name of an entry or of a command: it becomes a key, a section, a rule and an attribute.

    Raises:
        InputError: it has another form.
    """
    if not (isinstance(name, str) and _NAME.fullmatch(name)) or keyword.iskeyword(name):
        raise InputError(
            f"{what} {name!r}: a name has lower-case letters, digits and underscores, begins with a letter "
            "and is no keyword of Python"
        )
