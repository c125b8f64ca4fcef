"""The Slurm job in which this process runs: what Slurm says of it, and having it queued again."""

import os
import re
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime

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
    command = ["scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"]]
    environment = {**os.environ, "SLURM_TIME_FORMAT": "standard"}
    try:
        said = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_ANSWER_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        print(f"Slurm does not say how this job stands: {error}", flush=True)
        return None
    preempted = _time(said, "PreemptTime")
    return OwnJob(
        running=re.search(r"\bJobState=RUNNING\b", said) is not None,
        preempted=preempted is not None and preempted >= (_time(said, "StartTime") or 0),
        end=_time(said, "EndTime") or float("inf"),
    )


def queue_again() -> None:
    """Have Slurm queue the job again, asking until it does: a busy controller does not take every request.

    Raises:
        subprocess.SubprocessError: it never did.
    """
    for pause in (*_PAUSES_S, None):
        try:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True, timeout=60)
            return
        except subprocess.SubprocessError:
            if pause is None:
                raise
            time.sleep(pause)


def _time(said: str, name: str) -> float | None:
    found = re.search(rf"\b{name}=(\S+)", said)
    try:
        return datetime.fromisoformat(found[1]).timestamp() if found else None
    except ValueError:  # None, Unknown
        return None
