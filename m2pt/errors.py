"""The errors that are told in one message, without a traceback."""

from collections.abc import Iterable


class InputError(Exception):
    """What the user gave is wrong: a config key, a file, a dataset.

    The message is one sentence or two that name the file, the key and the value, and how to fix it. The
    command line prints it without a traceback and exits with code 2.
    """


class DamagedError(InputError):
    """A file of ours is not what was written: a bit has changed, or a part of it is missing."""


class RunError(Exception):
    """A run cannot go on, through no fault of the input: the message says where it stands.

    The command line prints it without a traceback and exits with code 1.
    """


def short(text: str, most: int = 200) -> str:
    """`text` for a message: cut to `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def listed(names: Iterable[object], most: int = 30) -> str:
    """Names for a message: the first `most`, each cut, and how many more; (none) if there are none."""
    every = [short(str(name), 100) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more or "(none)"
