"""The state of a submitted job, from its result file and from what the cluster reports, in this order."""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from submitit.core.utils import JobPaths, pickle_load

from snakemake_executor_plugin_submitit.slurm import ACTIVE
from snakemake_executor_plugin_submitit.task import JobFailed

CONFIRMATIONS = 3
"""Checks in a row that must report an end without a result before the job counts as failed: Slurm reports
NODE_FAIL for a job on a failed node before it reports PENDING."""

LOG_LINES = 20

_LOG_BYTES = 32768
_SUBMITIT_TRACEBACK = "submitit ERROR ("
_JOB_FAILED = f"{JobFailed.__module__}.{JobFailed.__name__}: "
_KILLED_FOR_MEMORY = re.compile(r"exceeded (job |step )?memory limit|oom[-_ ]?kill", re.IGNORECASE)


@dataclass
class SubmittedJob:
    """A job on the cluster.

    `checks_ended` of the last status checks in a row found it ended in `ended_state`, without a result.
    """

    job_id: str
    folder: Path
    checks_ended: int = 0
    ended_state: str = ""

    @property
    def paths(self) -> JobPaths:
        """Files of the job's one task, as submitit names them."""
        return JobPaths(self.folder, job_id=self.job_id, task_id=0)


@dataclass(frozen=True)
class JobState:
    """`succeeded` is None while the job is active or its end unconfirmed. A failure always has a reason."""

    succeeded: bool | None
    reason: str = ""


UNFINISHED = JobState(None)


def check_job(job: SubmittedJob, states: Mapping[str, str] | None, unknown_checks: int) -> JobState:
    """Determine the state of a job.

    Args:
        job: the job; its count of checks is updated.
        states: states that the cluster reports, by job id; None if it did not answer, which changes nothing.
        unknown_checks: checks in a row after which a job has failed that the cluster does not know, or that
            it calls completed without a result: result files appear late on shared file systems.
    """
    result = _read_result(job.paths.result_pickle)
    if result is not None and result.succeeded:
        return result
    if states is None:
        return UNFINISHED
    state = states.get(job.job_id, "")
    if state in ACTIVE and result is None:
        job.checks_ended = 0
        return UNFINISHED
    job.checks_ended = job.checks_ended + 1 if state == job.ended_state else 1
    job.ended_state = state
    if job.checks_ended < (unknown_checks if state in ("", "COMPLETED") else CONFIRMATIONS):
        return UNFINISHED
    if state != "OUT_OF_MEMORY" and _KILLED_FOR_MEMORY.search(log_tail(job)):
        state = f"OUT_OF_MEMORY ({state})"
    if result is not None:  # the kernel may have killed the program alone, and the job reported its exit code
        return replace(result, reason=f"{state}: {result.reason}") if "OUT_OF_MEMORY" in state else result
    if not state:
        return JobState(False, f"unknown to the cluster in {job.checks_ended} checks, and it left no result")
    return JobState(False, f"{state}: the job ended without a result")


def log_tail(job: SubmittedJob) -> str:
    """Return the path of the job's log and its last lines, without submitit's traceback."""
    path = job.paths.stdout
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return f"{path} does not exist: the job did not start, or its node does not share this folder."
    before, _, last = text.rpartition(_SUBMITIT_TRACEBACK)
    lines = (before or last).splitlines()[-LOG_LINES:]
    return "\n".join([f"The end of {path}:", *(f"  {line}" for line in lines)])


def _read_result(path: Path) -> JobState | None:
    if not path.exists():
        return None
    try:
        kind, value = pickle_load(path)
    except (EOFError, pickle.UnpicklingError, OSError):  # not yet complete on this side of the file system
        return None
    if kind == "success":
        return JobState(True, f"done after {value} restarts" if value else "")
    return JobState(False, str(value).strip().splitlines()[-1].removeprefix(_JOB_FAILED))
