"""Errors that the command line prints without a traceback."""

from collections.abc import Iterable

MOST_FAULTS = 20
"""Number of errors that are told at once."""


class InputError(Exception):
    """Invalid input from the user: a config key, a file, a dataset.

    The message names the file, the key and the value, and says how to fix it, in one or two sentences. The
    command line prints it without a traceback and exits with code 2.

    Args:
        message: the message.
        cause: equal for errors that are mended together, such as a recipe that many runs lack: the first of
            them is told; the message by default.
    """

    def __init__(self, message: str = "", cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause or message
        self.parts: tuple[InputError, ...] = ()
        """The errors that this one joins."""
        self.untold = 0
        """Number of errors beyond these parts."""


class DamagedError(InputError):
    """A file written by m2pt is corrupt: its content has changed, or a part of it is missing."""


class RunError(Exception):
    """A run cannot continue although its input is valid; the message says how far it got.

    The command line prints it without a traceback and exits with code 1.
    """


def joined(errors: Iterable[InputError], untold: int = 0) -> InputError:
    """Return one error for several, a line or more for each cause, for the first `MOST_FAULTS` causes.

    Args:
        errors: the errors; what they have joined is taken apart.
        untold: number of further errors.
    """
    causes: dict[str, InputError] = {}
    for error in errors:
        for part in error.parts or (error,):
            causes.setdefault(part.cause, part)
        untold += error.untold
    parts = tuple(causes.values())
    more = len(parts[MOST_FAULTS:]) + untold
    if len(parts) == 1 and not more:
        return parts[0]
    lines = [*map(str, parts[:MOST_FAULTS]), *([f"and {more} more errors."] if more else [])]
    whole = InputError("\n".join(lines))
    whole.parts, whole.untold = parts, untold
    return whole


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
