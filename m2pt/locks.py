"""A file that one process holds at a time; the system gives it back when that ends, however it ends."""

import errno
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TRAINING = ".lock"
"""The file in a training's folder that its process holds."""

_POLL_S = 0.5
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Held(Exception):
    """Another process holds the file; the text says which one, if it can."""


@contextmanager
def holding(path: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the file, made if it is not there, and write into it who does.

    While another process holds it, wait for that for `patience` seconds.
    On a file system that knows no locks (Lustre mounted without flock) a line says so, and nothing is held.

    Raises:
        Held: another process holds it still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        deadline = time.monotonic() + patience
        while not _locked(stream.fileno(), path):
            if time.monotonic() >= deadline:
                stream.seek(0)
                raise Held(stream.read().strip() or "another process")
            time.sleep(_POLL_S)
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {platform.node()}\n")
        stream.flush()
        try:
            yield
        finally:  # a child may have inherited the file: closing it would not be enough
            with suppress(OSError):
                fcntl.flock(stream.fileno(), fcntl.LOCK_UN)


def holder(path: Path) -> str | None:
    """Who holds the file; None if nobody does, or the file system knows no locks."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            try:
                fcntl.flock(stream.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return stream.read().strip() or "another process"
    except PermissionError:
        return "a process of another user"
    except OSError:
        return None
    return None


def _locked(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        print(f"{path}: not locked ({error.strerror}); see to it that one process at a time works here")
    return True
