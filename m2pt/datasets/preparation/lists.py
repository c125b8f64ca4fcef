"""The lists that a preparation writes into a dataset's folder, none over another file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from m2pt.atomic import write_text
from m2pt.errors import InputError, listed


def listed_path(path: Path, root: Path) -> str:
    """Return a path as a list in `root` names it: relative to `root` if it is below, else absolute."""
    folder = f"{os.path.normpath(root.absolute())}/"
    return os.path.normpath(path.absolute()).removeprefix(folder)


def check_lists(root: Path, lists: Mapping[str, str]) -> None:
    """Check that lists of some of these lines can be written to `root`: before hours of reading clips.

    Raises:
        InputError: a list that is there has other lines, or a text has a path that is not UTF-8.
    """
    _refuse_others(
        root,
        [
            name
            for name, content in _encoded(lists).items()
            if (root / name).exists() and not _lines((root / name).read_bytes()) <= _lines(content)
        ],
    )


def write_lists(root: Path, lists: Mapping[str, str]) -> None:
    """Write a file for each name and text to `root`; those that are there with this text stay.

    Raises:
        InputError: some are there with another text, or a text has a path that is not UTF-8; then nothing is
            written.
        OSError: the disk is full or not writable.
    """
    encoded = _encoded(lists)
    written = [name for name in lists if (root / name).exists()]
    _refuse_others(root, [name for name in written if (root / name).read_bytes() != encoded[name]])
    for name, text in lists.items():
        if name not in written:
            write_text(root / name, text)


def _encoded(lists: Mapping[str, str]) -> dict[str, bytes]:
    encoded = {}
    for name, text in lists.items():
        try:
            encoded[name] = text.encode()
        except UnicodeEncodeError as error:
            line = text[text.rfind("\n", 0, error.start) + 1 : error.end]
            raise InputError(f"{line!r} is not UTF-8, but {name} must name it: rename the file.") from None
    return encoded


def _lines(content: bytes) -> set[bytes]:
    """Return the lines without the commas between entries of JSON."""
    return {line.rstrip(b",") for line in content.splitlines()}


def _refuse_others(root: Path, names: Sequence[str]) -> None:
    if names:
        raise InputError(
            f"{root} already has {listed(names)} with another content: move the old one away to write it "
            "again, or give another folder."
        )
