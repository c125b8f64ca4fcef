"""Errors that the command line prints without a traceback."""

from collections.abc import Iterable


class InputError(Exception):
    """Invalid input from the user: a config key, a file, a dataset.

    The message names the file, the key and the value, and says how to fix it, in one or two sentences. The
    command line prints it without a traceback and exits with code 2.
    """


class DamagedError(InputError):
    """A file written by m2pt is corrupt: its content has changed, or a part of it is missing."""


class RunError(Exception):
    """A run cannot continue although its input is valid; the message says how far it got.

    The command line prints it without a traceback and exits with code 1.
    """


def short(text: str, most: int = 200) -> str:
    """Return `text` for a message, cut to `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def count(number: int, singular: str, plural: str) -> str:
    """Return a number with its noun, such as "1 class"."""
    return f"{number:,} {singular if number == 1 else plural}"


def listed(names: Iterable[object], most: int = 30) -> str:
    """Join names for a message: the first `most`, each shortened, and how many more; (none) for no names."""
    every = [short(str(name), 100) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more or "(none)"
