"""A check of many files that goes on where it was stopped."""

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from m2pt.datasets.reading import error_reason

RECORD = "checked.jsonl"
"""Record of the files that were read, with lines [path, bytes, time of the last change in ns, problem]."""

File: TypeAlias = tuple[str, int, int]
"""Path, size and time of the last change."""


def unreadable(paths: Iterable[Path], problem: Callable[[Path], str | None], root: Path) -> dict[Path, str]:
    """Read files, one in each thread, and return `{path: problem}` of those that have one.

    To read all videos of Kinetics takes hours. So files that were read are recorded in `root`, and are read
    again only after they have changed.

    Args:
        paths: the files.
        problem: reads a file and returns its problem, if there is one.
        root: folder of the dataset.
    """
    known = _read_record(root / RECORD)
    found: dict[Path, str | None] = {}
    waiting: dict[Path, File] = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            found[path] = f"{path} cannot be read: {error_reason(error)}."
            continue
        file = (str(path.absolute()), status.st_size, status.st_mtime_ns)
        if file in known:
            found[path] = known[file]
        else:
            waiting[path] = file
    root.mkdir(parents=True, exist_ok=True)
    is_cut_off = (root / RECORD).exists() and not (root / RECORD).read_bytes().endswith(b"\n")
    with (root / RECORD).open("a", buffering=1, encoding="utf-8") as record:
        record.write("\n" * is_cut_off)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = zip(waiting, pool.map(problem, waiting), strict=True)
            for path, why in tqdm(done, total=len(waiting), desc="reading clips", unit="file", disable=None):
                found[path] = why
                record.write(json.dumps([*waiting[path], why]) + "\n")
    return {path: why for path, why in found.items() if why}


def _read_record(path: Path) -> dict[File, str | None]:
    known: dict[File, str | None] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            match _parsed(line):
                case [str(name), int(size), int(time), None | str() as problem]:
                    known[name, size, time] = problem
    return known


def _parsed(line: str) -> object:
    """Return the value of a line, None if it is empty or was cut off."""
    try:
        return json.loads(line)
    except ValueError:
        return None
