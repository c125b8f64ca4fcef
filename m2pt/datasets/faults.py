"""Faults that datasets of several layouts have in common, found and worded in one place."""

import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from m2pt.errors import InputError

QUICK_SAMPLE = 500
"""Files of each split that the quick check decodes, evenly spaced; the full check decodes all of them."""

T = TypeVar("T")


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a bad file into an `InputError` that names it.

    Pillow, libsndfile, FFmpeg, HDF5 and NumPy raise far more kinds of errors on damaged or hostile files than
    they document. Put nothing but their calls into the block; `what` is what the file should be ("an image").

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


def fault_of(read: Callable[..., object], *args: Any, **settings: Any) -> str | None:
    """Return what a reader's function has to say against its arguments; None if it reads them."""
    try:
        read(*args, **settings)
    except InputError as error:
        return str(error)
    return None


def sampled(files: Sequence[T], *, full: bool) -> Sequence[T]:
    """Return the files that a check decodes: all of them if `full`, else `QUICK_SAMPLE`, evenly spaced."""
    return files if full else files[:: math.ceil(len(files) / QUICK_SAMPLE) or 1]


def regular_file(path: Path) -> Path:
    """Return a path that leads to a regular file: opening a pipe would wait for its other end.

    Raises:
        InputError: it does not.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}.") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {_kind(mode)}, not a file.")
    return path


def absent_files(root: Path, names: Iterable[str], listed_in: Path) -> dict[str, str]:
    """Return `{name: fault}` for every name, relative to `root` or absolute, that is not that of a file.

    Each folder is listed once: on a network file system that is far cheaper than asking for each of two
    million files.
    """
    listed: dict[str, tuple[set[str], str]] = {}
    faults: dict[str, str] = {}
    for name in dict.fromkeys(names):
        folder, file = os.path.split(name)
        if folder not in listed:
            listed[folder] = _files_in(root, folder)
        present, reason = listed[folder]
        if file not in present and (why := reason or _why_absent(root, name)):
            faults[name] = f"{_shown(root, name)} {why} although {listed_in} lists it."
    return faults


def _files_in(root: Path, folder: str) -> tuple[set[str], str]:
    """Return the names of the files of a folder, and what is wrong with the folder itself."""
    try:
        with os.scandir(root / folder) as entries:
            return {entry.name for entry in entries if _is_file(entry)}, ""
    except FileNotFoundError:
        return set(), "is missing"
    except (OSError, ValueError) as error:  # ValueError: a null byte or half of a surrogate pair
        return set(), f"cannot be read ({_reason(error)})"


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is or leads to a regular file; the folder's listing tells that of all but links."""
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _why_absent(root: Path, name: str) -> str | None:
    try:
        mode = (root / name).stat().st_mode
    except FileNotFoundError:
        return "is a link to nowhere" if (root / name).is_symlink() else "is missing"
    except (OSError, ValueError) as error:
        return f"cannot be read ({_reason(error)})"
    return None if stat.S_ISREG(mode) else f"is {_kind(mode)}"  # a file system may know it by another name


def _kind(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a pipe or device"


def _reason(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)


def _shown(root: Path, name: str) -> str:
    """A path for people: in quotes if it has characters that do not show, or spaces at an end."""
    shown = str(root / name)
    return shown if shown.isprintable() and name == name.strip() else repr(shown)


def repeated(names: Iterable[str], listed_in: Path, seen: dict[str, Path]) -> list[str]:
    """Return a fault for every name that was listed before; `seen`, `{name: list}`, is filled.

    With one `seen` for several lists an item that is in two of them is found too.
    """
    faults = []
    for name in names:
        if name in seen:
            again = " again" if seen[name] == listed_in else f", which is in {seen[name]} too"
            faults.append(f"{listed_in} lists {name}{again}.")
        seen[name] = listed_in
    return faults


def empty_classes(labels: Iterable[int], names: Sequence[str], listed_in: Path) -> list[str]:
    """Return a fault for every class, an index into `names`, that has no item, or one for all."""
    seen = set(labels)
    if not seen:
        return [f"all classes are empty: there is no item in {listed_in}."]
    return [
        f"class {label} ({name}) is empty: it has no item in {listed_in}."
        for label, name in enumerate(names)
        if label not in seen
    ]


def file_faults(paths: Sequence[Path], fault: Callable[[Path], str | None], *, what: str) -> Iterator[str]:
    """Examine every file on all cores and yield what `fault` has to say, with a progress bar."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(fault, paths)
        for sentence in tqdm(found, total=len(paths), desc=f"reading {what}", unit="file", disable=None):
            if sentence:
                yield sentence


def refuse(faults: Sequence[str]) -> None:
    """Stop on faults that a reader cannot do without.

    Raises:
        InputError: there is a fault; the first is given in full.
    """
    if faults:
        more = f" And {len(faults) - 1} more: `m2pt data check` names them all." if faults[1:] else ""
        raise InputError(faults[0] + more)
