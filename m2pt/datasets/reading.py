"""Opening the files of a dataset: every error becomes an `InputError` that names the file."""

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn any exception of a decoder into an `InputError` that names the file.

    Pillow, libsndfile, FFmpeg, HDF5 and NumPy raise many more kinds of errors on damaged or malicious files
    than they document. Put only their calls into the block.

    Args:
        path: the file.
        what: what the file should be, such as "an image".

    Raises:
        InputError: anything was raised within the block.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise InputError(f"{path} cannot be read as {what}: {reason}.") from error


def regular_file(path: Path) -> Path:
    """Return `path` after checking that it is a regular file: opening a pipe would block.

    Raises:
        InputError: it is not.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error_reason(error)}.") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {file_kind(mode)}, not a file.")
    return path


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text, without a byte order mark.

    Raises:
        InputError: the file is missing, unreadable, not a regular file or not UTF-8.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line} is not UTF-8 text: {error.reason}.") from None


def read_lines(path: Path) -> list[str]:
    """Return a UTF-8 file's lines, with the line ends of any system.

    Raises:
        InputError: as for `read_text`.
    """
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    return lines[:-1] if not lines[-1] else lines


def file_kind(mode: int) -> str:
    """Return the kind of a path that is not a regular file, from its `st_mode`."""
    return "a folder" if stat.S_ISDIR(mode) else "a pipe or device"


def error_reason(error: OSError | ValueError) -> str:
    """Return an error's reason without the path that Python adds to it."""
    return str(getattr(error, "strerror", None) or error)
