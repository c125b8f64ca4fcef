"""Faults of a config and of the files that it names, collected to be told in one run."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from m2pt.errors import InputError, joined

Entry = tuple[str, str]
"""A section of a config and a name in it; "" for the section itself."""


class Faults:
    """Collects errors and the entries that they spoil.

    What depends on a spoiled entry is not checked, since all its faults may be consequences.
    """

    def __init__(self) -> None:
        self._errors: list[InputError] = []
        self._spoiled: set[Entry] = set()

    def add(self, error: InputError, *entries: Entry) -> None:
        """Note an error, which spoils these entries."""
        self._errors.append(error)
        self._spoiled.update(entries)

    @contextmanager
    def noted(self, *entries: Entry) -> Iterator[None]:
        """Note an `InputError` of the block, which spoils these entries, instead of raising it."""
        try:
            yield
        except InputError as error:
            self.add(error, *entries)

    def affect(self, entries: Iterable[Entry]) -> bool:
        """Return whether any of these entries, or the whole section of one, is spoiled."""
        return any(entry in self._spoiled or (entry[0], "") in self._spoiled for entry in entries)

    def raise_all(self) -> None:
        """Raise the errors as one, if there are any.

        Raises:
            InputError: there are.
        """
        if self._errors:
            raise joined(self._errors)
