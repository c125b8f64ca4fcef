"""What has become of a job, judged by its result file and by what the cluster says, in that order."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from submitit.core.utils import JobPaths, pickle_load

from snakemake_executor_plugin_submitit.slurm import ALIVE

CONFIRMATIONS = 3
"""Checks in a row that must find a job ended without a result before it counts as failed: result files appear
late on shared file systems, and of a job on a failed node Slurm says NODE_FAIL before it says PENDING."""

TAIL_LINES = 20


@dataclass
class Submitted:
    """A job on the cluster, and what the last checks found."""

    key: str
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
    """`done` is None while the job is alive or in doubt; a failure has a reason."""

    done: bool | None
    reason: str = ""


UNDECIDED = Verdict(None)


def judge(job: Submitted, states: Mapping[str, str] | None, unknown_checks: int) -> Verdict:
    """Judge a job.

    Args:
        job: its doubts are counted up or cleared.
        states: the cluster's words by job id; None if the cluster gave no answer, which counts for nothing.
        unknown_checks: checks in a row in which nobody knows the job before it has failed.
    """
    outcome = _read_result(job.paths.result_pickle)
    if outcome is not None and outcome.done:
        return outcome
    if states is None:
        return UNDECIDED
    state = states.get(job.job_id, "")
    if outcome is None and state in ALIVE:
        job.doubts = 0
        return UNDECIDED
    job.doubts = job.doubts + 1 if state == job.doubted_state else 1
    job.doubted_state = state
    if outcome is not None:  # what killed the command, such as want of memory, the cluster says a little later
        if state in ALIVE and job.doubts < CONFIRMATIONS:
            return UNDECIDED
        plain = state in ALIVE or state in ("", "COMPLETED", "FAILED", "ENDED")
        return outcome if plain else Verdict(False, f"{state}: {outcome.reason}")
    if job.doubts < (CONFIRMATIONS if state else unknown_checks):
        return UNDECIDED
    if not state:
        return Verdict(False, f"the cluster has not known the job in {job.doubts} checks, and it left no result")
    return Verdict(False, f"{state}: the job ended without a result")


def log_tail(job: Submitted) -> str:
    """The end of the job's own log, and where it lies."""
    path = job.paths.stdout
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            lines = file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
    except FileNotFoundError:
        return f"{path} does not exist: the job has not begun, or this folder is not shared with its node."
    return "\n".join([f"The end of {path}:", *(f"  {line}" for line in lines)])


def _read_result(path: Path) -> Verdict | None:
    if not path.exists():
        return None
    try:
        kind, value = pickle_load(path)
    except (EOFError, pickle.UnpicklingError, OSError):  # not yet whole on this side of the file system
        return None
    if kind == "error":
        last = str(value).strip().splitlines()[-1]
        return Verdict(False, f"the job could not be run: {last}")
    if value["exit_code"] == 0:
        return Verdict(True)
    return Verdict(False, value["reason"] or f"exit code {value['exit_code']}")
