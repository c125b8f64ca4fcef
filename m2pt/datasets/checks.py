"""Helpers of the layouts' checks. A problem is one sentence that names the file and the fix."""

import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from m2pt.datasets.corrupt import CorruptSample, DatasetError
from m2pt.datasets.reading import error_reason, file_kind
from m2pt.errors import InputError

QUICK_SAMPLE = 500
"""Files of each split that the quick check decodes, evenly spaced; the full check decodes all of them."""

T = TypeVar("T")


def error_of(read: Callable[..., object], *args: Any, **settings: Any) -> str | None:
    """Return the message of the `InputError` that `read(*args, **settings)` raises; None if it succeeds.

    Raises:
        DatasetError: it raises this, which is no problem of a single sample.
    """
    try:
        read(*args, **settings)
    except DatasetError:
        raise
    except InputError as error:
        return str(error)
    return None


def raise_problems(problems: Sequence[str]) -> None:
    """Raise the first of the problems that a reader cannot work with, if there is one.

    Raises:
        InputError: there is a problem.
    """
    if problems:
        more = f" {len(problems) - 1} more: run `m2pt data check` to see all." if problems[1:] else ""
        raise InputError(problems[0] + more)


def quick_sample(files: Sequence[T], *, full: bool) -> Sequence[T]:
    """Return the files that a check decodes: all of them if `full`, else `QUICK_SAMPLE`, evenly spaced."""
    return files if full else files[:: math.ceil(len(files) / QUICK_SAMPLE) or 1]


def check_files(
    files: Sequence[T], check: Callable[[T], str | None], *, what: str, training: bool = False
) -> Iterator[str]:
    """Run `check` on every file, in a thread per core and with a progress bar, and yield the problems.

    Args:
        files: their paths, or what else `check` takes for a file.
        check: returns the problem of a file, or None.
        what: title of the progress bar.
        training: whether each file is a sample of the training split; its problem is a `CorruptSample`.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(check, files)
        for problem in tqdm(found, total=len(files), desc=f"reading {what}", unit="file", disable=None):
            if problem:
                yield CorruptSample(problem, len(files)) if training else problem


def missing_files(root: Path, names: Iterable[str], listed_in: Path) -> dict[str, str]:
    """Return `{name: problem}` for every name, relative to `root` or absolute, that is not a file.

    Each folder is listed once: on a network file system this is far cheaper than two million `stat` calls.
    """
    listed: dict[str, tuple[set[str], str]] = {}
    problems: dict[str, str] = {}
    for name in dict.fromkeys(names):
        folder, file = os.path.split(name)
        if folder not in listed:
            listed[folder] = _files_in(root, folder)
        present, reason = listed[folder]
        if file not in present and (why := reason or _why_missing(root, name)):
            problems[name] = f"{_printable(root, name)} {why}, but {listed_in} lists it."
    return problems


def _files_in(root: Path, folder: str) -> tuple[set[str], str]:
    """Return the names of the files in a folder, and the problem of the folder itself, if any."""
    try:
        with os.scandir(root / folder) as entries:
            return {entry.name for entry in entries if _is_file(entry)}, ""
    except FileNotFoundError:
        return set(), "is missing"
    except (OSError, ValueError) as error:  # ValueError: a null byte or half of a surrogate pair
        return set(), f"cannot be read ({error_reason(error)})"


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Return True for a regular file or a link to one; only links cost a `stat` call."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _why_missing(root: Path, name: str) -> str | None:
    try:
        mode = (root / name).stat().st_mode
    except FileNotFoundError:
        return "is a broken link" if (root / name).is_symlink() else "is missing"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error_reason(error)})"
    return None if stat.S_ISREG(mode) else f"is {file_kind(mode)}"  # a file system may normalize names


def _printable(root: Path, name: str) -> str:
    """Return a path for a message, quoted if it has unprintable characters or spaces at an end."""
    path = str(root / name)
    return path if path.isprintable() and name == name.strip() else repr(path)


def duplicates(names: Iterable[str], listed_in: Path, listed: dict[str, Path]) -> list[str]:
    """Return a problem for every name that was listed before, and add the names to `listed`, `{name: list}`.

    Pass the same `listed` for several lists to find names that are in two of them.
    """
    problems = []
    for name in names:
        if name in listed:
            first = "" if listed[name] == listed_in else f": {listed[name]} lists it too"
            problems.append(f"{listed_in} has the duplicate entry {name}{first}.")
        listed[name] = listed_in
    return problems


def empty_classes(labels: Iterable[int], names: Sequence[str], listed_in: Path) -> list[str]:
    """Return a problem for every class, an index into `names`, without a sample, or one for all of them."""
    present = set(labels)
    if not present:
        return [f"all classes are empty: {listed_in} lists no samples."]
    return [
        f"class {_class(label, name)} is empty: {listed_in} lists no sample of it."
        for label, name in enumerate(names)
        if label not in present
    ]


def _class(label: int, name: str) -> str:
    return name if name == str(label) else f"{label} ({name})"
