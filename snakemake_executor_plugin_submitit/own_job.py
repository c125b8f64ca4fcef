"""The Slurm job in which this process runs: what Slurm says of it, and having it queued again."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from submitit import JobEnvironment

_ANSWER_S = 10
_PAUSES_S = (1, 2, 4, 8, 15, 30, 60)


@dataclass(frozen=True)
class OwnJob:
    """Whether the job runs or is being ended, whether it is being preempted; its end by `time.time()`."""

    running: bool
    preempted: bool
    end: float


def own_job() -> OwnJob | None:
    """Ask Slurm; None outside a job, and, with a line in the log, if there is no answer within 10 s."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return None
    command = ["scontrol", "--oneliner", "show", "job", _job_id()]
    environment = {**os.environ, "SLURM_TIME_FORMAT": "%s"}
    try:
        said = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_ANSWER_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        print(f"Slurm does not say how this job stands: {error}", flush=True)
        return None
    return OwnJob(
        running=re.search(r"\bJobState=RUNNING\b", said) is not None,
        preempted=_time(said, "PreemptTime", 0) >= _time(said, "StartTime", 1),
        end=_time(said, "EndTime", float("inf")),
    )


def queue_again(given_up: Callable[[], bool]) -> None:
    """Have Slurm queue the job again, asking until it does: a busy controller does not take every request.

    `given_up` is asked between two attempts: Slurm would bring back even a job that was cancelled meanwhile.

    Raises:
        subprocess.SubprocessError: it never did.
    """
    for pause in (*_PAUSES_S, None):
        try:
            subprocess.run(["scontrol", "requeue", _job_id()], check=True, timeout=60)
            return
        except subprocess.SubprocessError:
            if pause is None:
                raise
            time.sleep(pause)
            if given_up():
                return


def _job_id() -> str:
    """Of an array the task's own: one of them has the whole array's number in SLURM_JOB_ID."""
    return str(JobEnvironment().job_id)


def _time(said: str, name: str, otherwise: float) -> float:
    """Read seconds since the epoch, instead of which `None` or `Unknown` may stand there."""
    found = re.search(rf"\b{name}=(\d+)\b", said)
    return float(found[1]) if found else otherwise
