"""Determine whether a silent process still runs: on this machine by its id, on a cluster by its Slurm job."""

import os
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from platform import node
from typing import Any

_CLOCK_SLACK = 600.0
"""Seconds by which two machines' clocks may differ, or one may be set while a process runs."""

_SLURM_SECONDS = 60.0
"""Shortest time between two requests to Slurm's controller."""

_SQUEUE = ["squeue", "--me", "--noheader", "--format=%A:%T"]


class Liveness:
    """Tells whether trainings are gone. Keep one instance: it caches the answers of Slurm."""

    def __init__(self) -> None:
        self._queried = 0.0
        self._jobs: set[str] | None = None

    def is_gone(self, folder: Path, provenance: Mapping[str, Any], last_write: float) -> bool:
        """Return whether the process of this provenance (host, pid, slurm_job) has certainly ended.

        Args:
            folder: the run's folder; Slurm may show users only their own jobs, so its owner matters.
            provenance: as in run.json.
            last_write: when the process last wrote to a file, in s since the epoch.
        """
        if "pid" not in provenance:
            return False
        if provenance.get("host") == node():
            started = provenance.get("started")
            at = None if started is None else datetime.fromisoformat(started).timestamp()
            return not process_exists(provenance["pid"], at)
        # A job may have started after the cached answer of Slurm, or seem to by its machine's clock.
        if "slurm_job" not in provenance or time.time() < last_write + _CLOCK_SLACK:
            return False
        jobs = self._running_jobs() if _is_ours(folder) else None
        return jobs is not None and provenance["slurm_job"] not in jobs

    def _running_jobs(self) -> set[str] | None:
        """Return the ids of the user's running jobs; None if Slurm does not answer.

        A pending job, perhaps requeued, has no process.
        """
        if time.monotonic() >= self._queried + _SLURM_SECONDS or not self._queried:
            self._queried = time.monotonic()
            answer = _squeue()
            jobs = None if answer is None else [line.split(":") for line in answer.split()]
            self._jobs = None if jobs is None else {job for job, state in jobs if state != "PENDING"}
        return self._jobs


def _squeue() -> str | None:
    """Return id and state of the user's jobs; None if there is no Slurm or it does not answer."""
    # Variables such as SQUEUE_STATES would filter the jobs.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        done = subprocess.run(_SQUEUE, capture_output=True, text=True, check=True, timeout=20, env=plain)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def process_exists(pid: int, at: float | None = None) -> bool:
    """Return whether process `pid` runs on this machine and, if `at` is given, was started before that.

    Ids are reused, after a reboot from the lowest on: a process younger than `at` (s since the epoch) is a
    different one. A zombie counts as ended.
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
