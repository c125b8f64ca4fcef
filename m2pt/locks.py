"""Lock files. A lock is released when its process ends, however that happens."""

import errno
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

_POLL_S = 0.5
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class LockedError(Exception):
    """Another process holds the lock; the message names that process if the file does."""


@contextmanager
def locked(path: Path, *, timeout: float = 0.0) -> Iterator[None]:
    """Lock a file within the block, and write into it which process has locked it.

    Missing folders and the file are created; the file stays. `flock` of util-linux sees the same lock. On a
    file system without locks (Lustre mounted without flock) a line is printed and nothing is locked.

    Args:
        path: the file to lock.
        timeout: seconds to wait while another process holds the lock.

    Raises:
        LockedError: another process still holds the lock.
        OSError: the file cannot be created or written.
    """
    # no soft lock instead: its file would outlive a killed process
    lock = FileLock(path, timeout, poll_interval=_POLL_S, fallback_to_soft=False, on_acquired=_write_holder)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(_read_holder(path)) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        print(
            f"{path}: not locked ({error.strerror}); make sure that only one process uses this folder",
            file=sys.stderr,
        )
    try:
        yield
    finally:
        with suppress(OSError):  # as of a folder that was deleted meanwhile on NFS
            lock.release()


def holder(path: Path) -> str | None:
    """Return the process that has locked a file; None if there is none or the file system has no locks."""
    try:
        with path.open("r+", encoding="utf-8") as file:
            return None if lock_descriptor(file.fileno(), blocking=False) else _read_holder(path)
    except PermissionError:
        return "a process of another user"
    except OSError:
        return None


def _write_holder(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())


def _read_holder(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
