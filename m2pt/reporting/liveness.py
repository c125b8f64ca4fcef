"""Whether a process that gives no sign still runs: here by its id, on a cluster by its job in Slurm."""

import os
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from platform import node
from typing import Any

# Seconds by which a machine may set its clock while a process runs, or by which two clocks differ.
_CLOCK_SLACK = 600.0
# A cluster's controller is asked no oftener.
_SLURM_SECONDS = 60.0
_SQUEUE = ["squeue", "--me", "--noheader", "--format=%A:%T"]


class Liveness:
    """Tells of trainings whether they are gone. Ask the same one again: it remembers what Slurm said."""

    def __init__(self) -> None:
        self._asked = 0.0
        self._jobs: set[str] | None = None

    def is_gone(self, folder: Path, provenance: Mapping[str, Any], last_sign: float) -> bool:
        """Whether it is certain that the process of this provenance (host, pid, slurm_job) runs no more.

        Args:
            folder: of the run; only of one's own jobs does Slurm tell everybody.
            provenance: as run.json has it.
            last_sign: when it last wrote something, in s of the epoch.
        """
        if "pid" not in provenance:
            return False
        if provenance.get("host") == node():
            started = provenance.get("started")
            at = None if started is None else datetime.fromisoformat(started).timestamp()
            return not process_exists(provenance["pid"], at)
        # A job that has just been started may be younger than what Slurm said, or seem so by its clock.
        if "slurm_job" not in provenance or time.time() < last_sign + _CLOCK_SLACK:
            return False
        jobs = self._running_jobs() if _is_ours(folder) else None
        return jobs is not None and provenance["slurm_job"] not in jobs

    def _running_jobs(self) -> set[str] | None:
        """Ids of one's own jobs whose processes run; None where Slurm does not answer.

        A job that waits in the queue, perhaps for the second time, has no process.
        """
        if time.monotonic() >= self._asked + _SLURM_SECONDS or not self._asked:
            self._asked = time.monotonic()
            said = _squeue()
            jobs = None if said is None else [line.split(":") for line in said.split()]
            self._jobs = None if jobs is None else {job for job, state in jobs if state != "PENDING"}
        return self._jobs


def _squeue() -> str | None:
    """What Slurm says of one's own jobs; None if there is no Slurm or it does not answer."""
    # Variables such as SQUEUE_STATES would leave some out.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        asked = subprocess.run(_SQUEUE, capture_output=True, text=True, check=True, timeout=20, env=plain)
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout


def process_exists(pid: int, at: float | None = None) -> bool:
    """Whether a process of that id runs on this machine, the one that ran `at` (s of the epoch) if given.

    Ids are given to new processes after a while, and from the lowest on after a reboot. A process that has
    ended counts as gone although its parent has not asked for its exit code yet.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return at is None or process.create_time() <= at + _CLOCK_SLACK
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _is_ours(folder: Path) -> bool:
    return folder.stat().st_uid == os.getuid()
