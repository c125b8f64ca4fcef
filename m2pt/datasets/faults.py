"""Faults that datasets of several layouts have in common, found and worded in one place."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from m2pt.errors import InputError


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
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} cannot be read as {what}: {reason}.") from error


def absent_files(root: Path, names: Iterable[str], listed_in: Path) -> dict[str, str]:
    """Return `{name: fault}` for every name, relative to `root`, that is not there.

    Each folder is listed once: on a network file system that is far cheaper than asking for each of two
    million files.
    """
    present: dict[str, Collection[str]] = {}
    faults = {}
    for name in dict.fromkeys(names):
        folder, _, file = name.rpartition("/")
        if folder not in present:
            path = root / folder
            present[folder] = {entry.name for entry in path.iterdir()} if path.is_dir() else ()
        if file not in present[folder]:
            faults[name] = f"{root / name} is missing although {listed_in} lists it."
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
