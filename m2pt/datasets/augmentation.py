"""From the `augmentation` mapping of a recipe to a reader's own settings."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from m2pt.errors import InputError

Settings = TypeVar("Settings")


def settings_of(kind: type[Settings], given: Mapping[str, Any] | None) -> Settings | None:
    """Return the dataclass `kind` filled from `given`; None, the evaluation view, stays None.

    Raises:
        InputError: `given` has a key that `kind` does not know.
    """
    if given is None:
        return None
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(f"unknown augmentation key {unknown[0]!r}; this reader knows {', '.join(known)}.")
    return kind(**given)
