"""The folder that holds the jobs' files: whether its path reaches them, and one Snakemake at a time in it."""

import errno
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout
from snakemake_interface_common.exceptions import WorkflowError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def check_folder(folder: str) -> None:
    """Check that submitit and Slurm do not read the path of the folder as a pattern.

    Raises:
        WorkflowError: the path has a `%`, which both replace with a job's number or name.
    """
    if "%" in folder:
        raise WorkflowError(
            f"{folder}: submitit and Slurm expand % in a path; run Snakemake in a folder without one."
        )


def check_quotable(paths: Iterable[str]) -> None:
    """Check that a shell reads these paths as they are: Snakemake quotes them in a job's command by `repr`.

    Raises:
        WorkflowError: a backslash would be doubled, or a `$` or backquote beside a single quote expanded.
    """
    for path in paths:
        quoted = repr(path)
        if "\\" in quoted or (quoted[0] == '"' and not {"$", "`", "!"}.isdisjoint(quoted)):
            raise WorkflowError(
                f"{path}: Snakemake cannot pass this path to a job; move it to one without quotes, "
                "backslashes and $."
            )


def lock(path: Path) -> FileLock:
    """Lock a file until it is released or this process ends, and write into it which process has locked it.

    Snakemake's own locks do not suffice: they protect output files, and a Snakemake that ends deletes those
    of the others. On a file system without locks (Lustre mounted without flock) a warning is printed.

    Raises:
        WorkflowError: another process has locked it.
    """

    def write_holder(descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())

    # no soft lock instead, whose file would outlive a killed process; Snakemake may release it in any thread
    acquired = FileLock(path, 0, thread_local=False, fallback_to_soft=False, on_acquired=write_holder)
    try:
        acquired.acquire()
    except Timeout:
        other = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        raise WorkflowError(
            f"another Snakemake ({other}) runs jobs in this folder: wait for it, interrupt it (kill -INT) or "
            f"run in another folder, such as a second clone. If its machine is down, delete {path}."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        print(f"{path}: not locked ({error.strerror}); run one Snakemake at a time in this folder")
    return acquired
