"""Files appear whole or not at all: write beside the target, flush to disk, rename.

A process that is killed meanwhile leaves its temporary file behind; whoever writes into the folder next
removes it. The name says which process writes it, so that no file of a living one is touched.
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
"""Names of temporary files: the target's, its writer, a random number."""

QUIET_HOURS = 24
"""After that without a write, a temporary file is abandoned although its writer cannot be asked for: it is on
another machine."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; rename it to `path` if the block succeeds, else delete it.

    What killed processes have left in the folder is removed first.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` keeps its old content.
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
    """A new name beside `path` for what this process is about to write."""
    pid = os.getpid()
    # Seeded generators are equal in equal runs; `secrets` has none.
    unique = f"{_machine()}-{pid}-{_started(pid) or 0}-{secrets.token_hex(3)}"
    return path.with_name(f".{path.name}.{unique}.part")


def parts(folder: Path) -> list[Path]:
    """All temporary files and folders in `folder`, whoever writes them; empty if it cannot be read."""
    with suppress(OSError):
        return sorted(Path(entry) for entry in os.scandir(folder) if PART.fullmatch(entry.name))
    return []


def clear_abandoned(folder: Path) -> None:
    """Remove the temporary files and folders in `folder` whose writers are gone."""
    for part in parts(folder):
        if is_abandoned(part):
            remove_part(part)


def remove_part(part: Path) -> None:
    """Remove a temporary file or folder, if that is possible."""
    with suppress(OSError):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink()


def is_abandoned(part: Path) -> bool:
    """Whether the writer of a temporary file is gone, or has been silent for `QUIET_HOURS`."""
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
    """Where process ids mean the same: this boot of this machine, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return f"{zlib.crc32((boot + str(Path('/proc/self/ns/pid').readlink())).encode()):08x}"
    except OSError:  # no Linux: equal to no other process's
        return secrets.token_hex(4)


def _started(pid: int) -> str | None:
    """When a process started, in ticks since the boot: ids are given again. None if it has ended."""
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
    """Write `value` to `path` as indented JSON, keys in the order given, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
