"""Slurm: jobs are submitted through submitit, and one query reports the states of all of them."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError
from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import read_job_id

from snakemake_executor_plugin_submitit.cluster import ClusterUnavailable
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.task import SnakemakeTask

ACTIVE = {
    "PENDING",
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
    "RESIZING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
}
"""Slurm's states of a job that runs or can still run, if necessary once it is released."""

_QUERY_TIMEOUT_S = 60
_IDS_PER_CALL = 200
_SACCT = ("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State")
_SQUEUE = ("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T")
_BUSY = (
    "Socket timed out",
    "Unable to contact slurm controller",
    "Slurm temporarily unable",
    "Connection refused",
)
_SET_BY_USERS = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT", "SLURM_JWT")
_RETRY_PAUSES_S = (2, 5, 15, 30, 60)


class Slurm:
    """A Slurm cluster, used through the commands in PATH. All nodes share `folder`."""

    name = "slurm"

    def __init__(self, folder: Path, max_restarts: int) -> None:
        self._accounting = True
        self.folder = folder
        # `exec` turns the batch shell into this Python process, so that it gets the warning: see `task`
        python = f"exec {shlex.quote(sys.executable)}"
        try:
            self._submitit = SlurmExecutor(folder, max_num_timeout=max_restarts + 1, python=python)
        except RuntimeError:
            raise WorkflowError(
                "submitit-cluster is slurm, but there is no srun in PATH: run Snakemake on a login node, or "
                "choose --submitit-cluster local."
            ) from None

    def submit(self, tasks: Sequence[SnakemakeTask], request: Request, name: str, comment: str) -> list[str]:
        """Submit tasks with equal requests, several of them as one job array, and return their job ids.

        Raises:
            WorkflowError: Slurm rejects them; the message is Slurm's.
        """
        parameters = request.slurm_parameters()
        set_here = {"signal": f"B:USR2@{tasks[0].warning_s}", "requeue": True, "comment": comment}
        parameters["additional_parameters"] = {**parameters["additional_parameters"], **set_here}
        self._submitit.update_parameters(
            **parameters,
            job_name=name,
            use_srun=False,
            stderr_to_stdout=True,
            array_parallelism=len(tasks),
            setup=["trap '' USR2  # a warning that arrives before Python handles it must not end the job"],
        )
        for pause in (*_RETRY_PAUSES_S, None):
            try:
                with _without_job_variables(), self._submitit.batch():
                    jobs = [self._submitit.submit(task) for task in tasks]
                return [job.job_id for job in jobs]
            except FailedJobError as error:
                message = str(error).strip() or str(error.__cause__)
                if pause is None or not any(words in message for words in _BUSY):
                    raise WorkflowError(f"Slurm rejects the job: {message}") from None
                time.sleep(pause)
        raise AssertionError("unreachable")

    def states(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return Slurm's state of each job that it knows.

        `sacct` is asked first, since it puts no load on the controller, then `squeue` about the jobs that
        `sacct` does not know or reports as ended: it knows a requeue at once, and is all that there is
        without accounting.

        Raises:
            ClusterUnavailable: `squeue` is needed for some job and does not answer.
        """
        wanted = set(job_ids)
        found: dict[str, str] = {}
        if self._accounting:
            with suppress(ClusterUnavailable):
                found = {key: state for key, state in self._sacct(wanted).items() if key in wanted}
        if uncertain := wanted - {job_id for job_id, state in found.items() if state in ACTIVE}:
            found.update({key: state for key, state in self._squeue().items() if key in uncertain})
        return found

    def find(self, name: str, since: float) -> list[str]:
        """Return the ids of the jobs that were submitted under a name since a time.

        Raises:
            ClusterUnavailable: `squeue` does not answer.
        """
        found = set(self._squeue(f"--name={name}"))
        if self._accounting:
            start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
            with suppress(ClusterUnavailable):
                found |= set(parse_states(_run([*_SACCT, f"--name={name}", f"--starttime={start}"])))
        return sorted(found, key=lambda job_id: [int(part) for part in job_id.split("_")])

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel these jobs and no others; jobs that have ended are skipped.

        Raises:
            ClusterUnavailable: some of them may still run.
        """
        failures: list[str] = []
        for ids in _batches(list(job_ids)):
            try:
                _run(["scancel", "--quiet", *ids])
            except ClusterUnavailable as error:
                failures.append(str(error))
        if failures:
            raise ClusterUnavailable("; ".join(dict.fromkeys(failures)))

    def _sacct(self, job_ids: set[str]) -> dict[str, str]:
        roots = sorted({job_id.split("_")[0] for job_id in job_ids})
        found: dict[str, str] = {}
        for batch in _batches(roots):
            try:
                found.update(parse_states(_run([*_SACCT, f"--jobs={','.join(batch)}"])))
            except ClusterUnavailable as error:
                if "accounting storage is disabled" in str(error).lower():
                    self._accounting = False
                raise
        return found

    def _squeue(self, *choice: str) -> dict[str, str]:
        return parse_states(_run([*_SQUEUE, *choice]))


@contextmanager
def _without_job_variables() -> Iterator[None]:
    """Hide the variables of the job that this process runs in, if any: sbatch would pass them to new jobs.

    Variables that users set, such as SLURM_CONF or SBATCH_ACCOUNT, stay.
    """
    hidden: dict[str, str] = {}
    if "SLURM_JOB_ID" in os.environ:
        names = [name for name in os.environ if name.startswith("SLURM_") and name not in _SET_BY_USERS]
        hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _batches(ids: list[str]) -> Iterator[list[str]]:
    """Split ids into batches that fit on one command line."""
    for begin in range(0, len(ids), _IDS_PER_CALL):
        yield ids[begin : begin + _IDS_PER_CALL]


def _run(command: list[str]) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=True)
    except subprocess.CalledProcessError as error:
        raise ClusterUnavailable(f"{command[0]}: {error.stderr.strip()}") from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise ClusterUnavailable(f"{command[0]}: {error}") from None
    return answer.stdout


def parse_states(text: str) -> dict[str, str]:
    """Parse lines of `id|state`; the pending tasks of an array share a line such as `7_[2-5%4]|PENDING`."""
    states: dict[str, str] = {}
    for line in text.splitlines():
        job, _, state = line.strip().partition("|")
        if not job or "." in job:
            continue
        state = state.split()[0] if state else ""  # "CANCELLED by 1000"
        try:
            listed = read_job_id(job)
        except ValueError:  # a long array, abbreviated as in 7_[1,3,5,...]: squeue --array lists its tasks
            continue
        for parts in listed:
            root, *indices = parts
            if len(indices) == 2:
                states.update({f"{root}_{k}": state for k in range(int(indices[0]), int(indices[1]) + 1)})
            else:
                states["_".join(parts)] = state
    return states
