"""Outputs of a finished training, kept where Snakemake does not delete them: the folder `finished/`.

Snakemake deletes the outputs of a rule before it runs the job again, even if the job ended well while no
Snakemake was there to see it. So the exported files are kept a second time: as hard links, which take no
space, or as copies on a file system without them. `finished/state.json` holds the training's identity, the
digest of each file, and the training's records. The same command then restores all that instead of training.
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
from m2pt.run_files import (
    DAMAGED,
    FAILED,
    FINAL,
    FINISHED,
    INTERRUPTED,
    KEPT,
    KEPT_STATE,
    METRICS,
    RESUME,
    RUN,
)
from m2pt.training.metrics import metrics_fault

_RECORDS = (RUN, FINISHED)


def save(directory: Path, identity: str, names: Sequence[str]) -> None:
    """Keep the named files of the finished training `identity`, and its records; delete final.pt.

    Raises:
        InputError: the folder cannot be written, or one of the files is missing.
    """
    folder = directory / KEPT
    delete(directory)
    try:
        for name in names:
            _link(directory / name, folder / name)
        metrics = directory / METRICS
        content = {
            "identity": identity,
            "files": {name: file_digest(folder / name) for name in names},
            "metrics": {"length": metrics.stat().st_size, "sha256": file_digest(metrics)},
            "records": {name: read_json(directory / name) for name in _RECORDS},
        }
        write_json(folder / KEPT_STATE, {**content, "sha256": _digest(content)})
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error}): free disk space or fix the permissions"
        ) from error
    (directory / FINAL).unlink(missing_ok=True)


def load(directory: Path, identity: str) -> dict[str, Any] | None:
    """Return the record of `save` for this identity after verifying every byte, or None if there is none.

    Raises:
        DamagedError: it has changed since.
        InputError: it cannot be read.
    """
    state = _read(directory)
    if state is None or state["identity"] != identity:
        return None
    for name, digest in state["files"].items():
        path = directory / KEPT / name
        if not path.is_file() or file_digest(path) != digest:
            raise DamagedError(f"{path} is damaged")
    if fault := metrics_fault(directory / METRICS, **state["metrics"]):
        raise DamagedError(fault)
    return state


def restore(directory: Path, state: Mapping[str, Any]) -> None:
    """Restore the files and records in `state` (from `load`), and delete the state of an unfinished attempt.

    The files get a newer time than their inputs, as Snakemake requires.

    Raises:
        OSError: the folder cannot be written.
    """
    for name in state["files"]:
        _link(directory / KEPT / name, directory / name)
        os.utime(directory / name)
    os.truncate(directory / METRICS, state["metrics"]["length"])
    for name, record in state["records"].items():
        if not _holds(directory / name, record):
            write_json(directory / name, record)
    for name in (RESUME, FINAL, INTERRUPTED, FAILED):
        (directory / name).unlink(missing_ok=True)


def stored_identity(directory: Path) -> str | None:
    """Return the identity of the training with files kept here; None if there is none or it is damaged."""
    try:
        state = _read(directory)
    except DamagedError:
        return None
    return None if state is None else str(state["identity"])


def delete(directory: Path) -> None:
    """Delete the kept files; the outputs themselves stay."""
    (directory / KEPT / KEPT_STATE).unlink(missing_ok=True)  # first: without it the other files mean nothing
    shutil.rmtree(directory / KEPT, ignore_errors=True)


def move_to_damaged(directory: Path) -> Path:
    """Move the kept files to `damaged/`, replacing what is there; return their new folder."""
    target = directory / DAMAGED / KEPT
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    (directory / KEPT).rename(target)
    return target


def _read(directory: Path) -> dict[str, Any] | None:
    path = directory / KEPT / KEPT_STATE
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
    """Return whether the JSON file at `path` is there and equals `record`."""
    try:
        return bool(read_json(path) == record)
    except InputError:
        return False


def _link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`. Both are only ever replaced as a whole, never written to."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links, or no right to make one
            shutil.copyfile(source, temporary)
