"""The Slurm job that this process runs in: what Slurm reports about it, and requeueing it."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from submitit import JobEnvironment

_TIMEOUT_S = 10
_RETRY_PAUSES_S = (1, 2, 4, 8, 15, 30, 60)


@dataclass(frozen=True)
class Allocation:
    """State of the job: `running` is False once Slurm ends it; `end` is in seconds, as of `time.time()`."""

    running: bool
    preempted: bool
    end: float


def current_allocation() -> Allocation | None:
    """Ask Slurm for the job's state.

    Returns:
        None outside a Slurm job, and, with a line in the log, if Slurm does not answer within 10 s.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return None
    command = ["scontrol", "--oneliner", "show", "job", _job_id()]
    environment = {**os.environ, "SLURM_TIME_FORMAT": "%s"}
    try:
        answer = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        print(f"Slurm does not report the state of this job: {error}", flush=True)
        return None
    return Allocation(
        running=re.search(r"\bJobState=RUNNING\b", answer) is not None,
        preempted=_time(answer, "PreemptTime", 0) >= _time(answer, "StartTime", 1),
        end=_time(answer, "EndTime", float("inf")),
    )


def requeue(is_cancelled: Callable[[], bool]) -> None:
    """Put the job back into the queue, and try again while the Slurm controller is too busy to do it.

    Args:
        is_cancelled: called between two attempts, and ends them if true: Slurm would requeue even a job that
            was cancelled meanwhile.

    Raises:
        subprocess.SubprocessError: every attempt failed.
    """
    for pause in (*_RETRY_PAUSES_S, None):
        try:
            subprocess.run(["scontrol", "requeue", _job_id()], check=True, timeout=60)
            return
        except subprocess.SubprocessError:
            if pause is None:
                raise
            time.sleep(pause)
            if is_cancelled():
                return


def _job_id() -> str:
    """Return the id. In an array SLURM_JOB_ID does not do: one task has the id of the whole array there."""
    return str(JobEnvironment().job_id)


def _time(answer: str, name: str, default: float) -> float:
    """Read seconds since the epoch; Slurm prints `None` or `Unknown` for a time that it does not know."""
    found = re.search(rf"\b{name}=(\d+)\b", answer)
    return float(found[1]) if found else default
