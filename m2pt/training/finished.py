"""What a finished training keeps where Snakemake does not delete it: the folder `finished/` of its run.

Snakemake deletes a rule's outputs before it runs the job again, also where the job had ended while no
Snakemake was there to see it. So the exported files are kept a second time: as hard links, which take no
room, or as copies on a file system without them. `finished/state.json` says whose they are, with a digest of
each, and holds the records of the training. The same command then puts all of that back and trains nothing.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m2pt.atomic import replacing, write_json
from m2pt.errors import DamagedError, InputError
from m2pt.formats.documents import LARGEST_RECORD, parse_json, read_bytes, read_json
from m2pt.formats.weight_files import file_digest
from m2pt.training.metrics import metrics_fault

FOLDER = "finished"
STATE = "state.json"
DAMAGED = "damaged"
"""Folder beside it for what is found to be damaged."""

_RECORDS = ("run.json", "finished.json")
_METRICS = "metrics.jsonl"


def keep(directory: Path, identity: str, names: Sequence[str]) -> None:
    """Keep the named files of the finished training `identity`, and its records.

    Raises:
        InputError: the folder cannot be written, or one of the files is missing.
    """
    folder = directory / FOLDER
    forget(directory)
    try:
        for name in names:
            _link(directory / name, folder / name)
        metrics = directory / _METRICS
        content = {
            "identity": identity,
            "files": {name: file_digest(folder / name) for name in names},
            "metrics": {"length": metrics.stat().st_size, "sha256": file_digest(metrics)},
            "records": {name: read_json(directory / name) for name in _RECORDS},
        }
        write_json(folder / STATE, {**content, "sha256": _digest(content)})
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error}): make room or fix the permissions") from error


def find(directory: Path, identity: str) -> dict[str, Any] | None:
    """What `keep` has written for this identity, every byte of it checked; None if there is nothing of it.

    Raises:
        DamagedError: it has been changed since.
        InputError: it cannot be read.
    """
    state = _read(directory)
    if state is None or state["identity"] != identity:
        return None
    for name, digest in state["files"].items():
        path = directory / FOLDER / name
        if not path.is_file() or file_digest(path) != digest:
            raise DamagedError(f"{path} is damaged")
    if fault := metrics_fault(directory / _METRICS, **state["metrics"]):
        raise DamagedError(fault)
    return state


def put_back(directory: Path, state: Mapping[str, Any]) -> None:
    """Put what `find` has found where it was, younger than anything that it was made from.

    Raises:
        OSError: the folder cannot be written.
    """
    for name in state["files"]:
        _link(directory / FOLDER / name, directory / name)
        os.utime(directory / name)
    os.truncate(directory / _METRICS, state["metrics"]["length"])
    for name, record in state["records"].items():
        if not _holds(directory / name, record):
            write_json(directory / name, record)


def identity_of(directory: Path) -> str | None:
    """Whose finished files are kept in a run's folder; None if there are none, or nobody can tell."""
    try:
        state = _read(directory)
    except DamagedError:
        return None
    return None if state is None else str(state["identity"])


def forget(directory: Path) -> None:
    """Keep nothing any more."""
    (directory / FOLDER / STATE).unlink(missing_ok=True)  # first: without it the rest is nobody's
    shutil.rmtree(directory / FOLDER, ignore_errors=True)


def set_aside(directory: Path) -> Path:
    """Move what is kept to `damaged/`, in place of what is there; return where it is."""
    aside = directory / DAMAGED / FOLDER
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(exist_ok=True)
    (directory / FOLDER).rename(aside)
    return aside


def _read(directory: Path) -> dict[str, Any] | None:
    path = directory / FOLDER / STATE
    if not path.exists():
        return None
    stored = read_bytes(path, limit=LARGEST_RECORD)
    try:
        content = parse_json(stored, str(path))
        digest = content.pop("sha256")
    except (InputError, AttributeError, LookupError, TypeError) as error:
        raise DamagedError(f"{path} is damaged ({error})") from error
    if digest != _digest(content):
        raise DamagedError(f"{path} is damaged")
    return content  # type: ignore[no-any-return]


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _holds(path: Path, record: Any) -> bool:
    try:
        return bool(read_json(path) == record)
    except InputError:
        return False


def _link(made: Path, kept: Path) -> None:
    """Make `kept` the same file as `made`. Both are only ever replaced as a whole, never written to."""
    with replacing(kept) as temporary:
        try:
            os.link(made, temporary)
        except OSError:  # a file system without hard links, or no right to make one
            shutil.copyfile(made, temporary)
