"""One controller at a time in a working directory: the ledger and the jobs in it are those of one."""

import errno
import fcntl
import os
import platform
from pathlib import Path
from typing import TextIO

from snakemake_interface_common.exceptions import WorkflowError

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def lock(path: Path) -> TextIO:
    """Lock a file until the returned one is closed or this process ends, however it ends.

    Snakemake's own locks are not enough: they are about output files, and one Snakemake that ends deletes
    those of the others. On a file system that knows no locks (Lustre mounted without flock) a line says so.

    Raises:
        WorkflowError: another process has locked it.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        other = file.read().strip() or "another process"
        file.close()
        raise WorkflowError(
            f"another Snakemake ({other}) has its jobs in this folder: wait for it, interrupt it (kill -INT) "
            f"or work in another folder, such as a second clone. If its machine is down, delete {path}."
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            file.close()
            raise
        print(f"{path}: not locked ({error.strerror}); start one Snakemake at a time in this folder")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    return file
