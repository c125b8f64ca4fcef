"""What has become of a job, judged by its result file and by what the cluster says, in that order."""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from submitit.core.utils import JobPaths, pickle_load

from snakemake_executor_plugin_submitit.slurm import ALIVE
from snakemake_executor_plugin_submitit.task import JobFailed

CONFIRMATIONS = 3
"""Checks in a row that must find a job ended without a result before it counts as failed: of a job on a
failed node Slurm says NODE_FAIL before it says PENDING."""

TAIL_LINES = 20

_TAIL_BYTES = 32768
_SUBMITIT_TRACEBACK = "submitit ERROR ("
_JOB_FAILED = f"{JobFailed.__module__}.{JobFailed.__name__}: "
_KILLED_FOR_MEMORY = re.compile(r"exceeded (job |step )?memory limit|oom[-_ ]?kill", re.IGNORECASE)


@dataclass
class Submitted:
    """A job on the cluster, and what the last checks found."""

    job_id: str
    folder: Path
    doubts: int = field(default=0)
    doubted_state: str = field(default="")

    @property
    def paths(self) -> JobPaths:
        """Where submitit has put the files of the job's one task."""
        return JobPaths(self.folder, job_id=self.job_id, task_id=0)


@dataclass(frozen=True)
class Verdict:
    """`done` is None while the job is alive or in doubt; a failure has a reason, a success may have one."""

    done: bool | None
    reason: str = ""


UNDECIDED = Verdict(None)


def judge(job: Submitted, states: Mapping[str, str] | None, unknown_checks: int) -> Verdict:
    """Judge a job.

    Args:
        job: its doubts are counted up or cleared.
        states: the cluster's words by job id; None if the cluster gave no answer, which counts for nothing.
        unknown_checks: checks in a row in which nobody knows the job before it has failed, or in which it
            is called completed, since result files appear late on shared file systems.
    """
    result = _read_result(job.paths.result_pickle)
    if result is not None and result.done:
        return result
    if states is None:
        return UNDECIDED
    state = states.get(job.job_id, "")
    if state in ALIVE and result is None:
        job.doubts = 0
        return UNDECIDED
    job.doubts = job.doubts + 1 if state == job.doubted_state else 1
    job.doubted_state = state
    if job.doubts < (unknown_checks if state in ("", "COMPLETED") else CONFIRMATIONS):
        return UNDECIDED
    if state != "OUT_OF_MEMORY" and _KILLED_FOR_MEMORY.search(log_tail(job)):
        state = f"OUT_OF_MEMORY ({state})"
    if result is not None:  # the kernel may have killed the program alone, which the job outlives
        return replace(result, reason=f"{state}: {result.reason}") if "OUT_OF_MEMORY" in state else result
    if not state:
        return Verdict(
            False, f"the cluster has not known the job in {job.doubts} checks, and it left no result"
        )
    return Verdict(False, f"{state}: the job ended without a result")


def log_tail(job: Submitted) -> str:
    """The end of the job's own log, and where it lies."""
    path = job.paths.stdout
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return f"{path} does not exist: the job did not begin, or this folder is not shared with its node."
    begin, _, last = text.rpartition(_SUBMITIT_TRACEBACK)
    lines = (begin or last).splitlines()[-TAIL_LINES:]
    return "\n".join([f"The end of {path}:", *(f"  {line}" for line in lines)])


def _read_result(path: Path) -> Verdict | None:
    if not path.exists():
        return None
    try:
        kind, value = pickle_load(path)
    except (EOFError, pickle.UnpicklingError, OSError):  # not yet whole on this side of the file system
        return None
    if kind == "success":
        return Verdict(True, f"done after {value} restarts" if value else "")
    return Verdict(False, str(value).strip().splitlines()[-1].removeprefix(_JOB_FAILED))
