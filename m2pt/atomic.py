"""Atomic writes: write a temporary file next to the target, flush it to disk, rename it.

A process that is killed while writing leaves its temporary file behind; the next process to write into the
folder removes it. The file's name identifies its writer, so that files of running processes are kept.
"""

import json
import os
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

PART = re.compile(r"\..+\.(?P<machine>[0-9a-f]+)-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]+\.part")
"""Name of a temporary file: the target's name, the writer, a random number."""

QUIET_HOURS = 24
"""Hours without a write after which a temporary file from another machine counts as abandoned."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; rename it to `path` if the block succeeds, else delete it.

    Temporary files of killed processes are removed from the folder first.

    Raises:
        OSError: the folder is not writable or the disk is full; `path` keeps its old content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(path.parent)
    temporary = part_of(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Return a new temporary name next to `path` for this process to write to."""
    pid = os.getpid()
    # `secrets`, because seeded generators give equal names in equal runs.
    unique = f"{_machine()}-{pid}-{_started(pid) or 0}-{secrets.token_hex(3)}"
    return path.with_name(f".{path.name}.{unique}.part")


def parts(folder: Path) -> list[Path]:
    """Return the temporary files and folders of any process in `folder`; empty if it cannot be read."""
    with suppress(OSError):
        return sorted(Path(entry) for entry in os.scandir(folder) if PART.fullmatch(entry.name))
    return []


def clear_abandoned(folder: Path) -> None:
    """Remove abandoned temporary files and folders from `folder`."""
    for part in parts(folder):
        if is_abandoned(part):
            remove_part(part)


def remove_part(part: Path) -> None:
    """Remove a temporary file or folder, ignoring errors."""
    with suppress(OSError):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink()


def is_abandoned(part: Path) -> bool:
    """Return whether the writer of a temporary file has exited, or has not written for `QUIET_HOURS`."""
    named = PART.fullmatch(part.name)
    if named is None:
        return False
    if named["machine"] == _machine():
        return _started(int(named["pid"])) != named["started"]
    with suppress(OSError):
        return time.time() - part.lstat().st_mtime > QUIET_HOURS * 3600
    return False


@cache
def _machine() -> str:
    """Identify the scope in which process ids are unique: machine, boot and container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return f"{zlib.crc32((boot + str(Path('/proc/self/ns/pid').readlink())).encode()):08x}"
    except OSError:  # not Linux: a value unique to this process
        return secrets.token_hex(4)


def _started(pid: int) -> str | None:
    """Return the start time of a process in ticks since boot, since ids are reused; None if it has exited."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return None
    state, *others = fields.split()
    return None if state in "ZX" else others[18]


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON with its keys in the given order, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` if the block succeeds, and is deleted if not."""
    folder, replaced = part_of(path), part_of(path)
    folder.mkdir(parents=True)
    clear_abandoned(folder.parent)
    try:
        yield folder
        if path.exists():
            path.rename(replaced)
        folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
