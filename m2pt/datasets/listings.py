"""Lists in plain text, one entry in each line."""

import re
from pathlib import Path

from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text, without a byte order mark.

    Raises:
        InputError: the file is missing, may not be read, is not a regular file or not UTF-8.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line} is not UTF-8 text: {error.reason}.") from None


def read_lines(path: Path) -> list[str]:
    """Return a UTF-8 file's lines, whichever system ended them.

    Raises:
        InputError: as for `read_text`.
    """
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    return lines[:-1] if not lines[-1] else lines
