"""Submitting to Slurm through submitit, and asking Slurm about all jobs at once."""

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

from snakemake_executor_plugin_submitit.cluster import NoAnswer
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.task import SnakemakeTask

ALIVE = {
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
"""Slurm's words for a job that runs, or will run, if need be once somebody releases it."""

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
_OF_USERS = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT", "SLURM_JWT")
_PATIENCE_S = (2, 5, 15, 30, 60)


class Slurm:
    """A Slurm cluster, reached by the commands in PATH. `folder` is shared by all nodes."""

    name = "slurm"

    def __init__(self, folder: Path, max_restarts: int) -> None:
        self._accounting = True
        self.folder = folder
        # `exec` makes the batch shell this Python process, which the warning then reaches (see `task`).
        python = f"exec {shlex.quote(sys.executable)}"
        try:
            self._submitit = SlurmExecutor(folder, max_num_timeout=max_restarts + 1, python=python)
        except RuntimeError:
            raise WorkflowError(
                "submitit-cluster is slurm, but there is no srun in PATH: run on a machine that submits to "
                "Slurm, or choose --submitit-cluster local"
            ) from None

    def submit(self, tasks: Sequence[SnakemakeTask], request: Request, name: str, comment: str) -> list[str]:
        """Submit tasks of one request, several as one job array, and return their job ids.

        Raises:
            WorkflowError: Slurm refuses them; the message is Slurm's.
        """
        parameters = request.slurm()
        own = {"signal": f"B:USR2@{tasks[0].warning_s}", "requeue": True, "comment": comment}
        parameters["additional_parameters"] = {**parameters["additional_parameters"], **own}
        self._submitit.update_parameters(
            **parameters,
            job_name=name,
            use_srun=False,
            stderr_to_stdout=True,
            array_parallelism=len(tasks),
            setup=["trap '' USR2  # a warning before Python can handle it would end the job"],
        )
        for pause in (*_PATIENCE_S, None):
            try:
                with _outside_of_any_job(), self._submitit.batch():
                    jobs = [self._submitit.submit(task) for task in tasks]
                return [job.job_id for job in jobs]
            except FailedJobError as error:
                said = str(error).strip() or str(error.__cause__)
                if pause is None or not any(word in said for word in _BUSY):
                    raise WorkflowError(f"Slurm refuses the job: {said}") from None
                time.sleep(pause)
        raise AssertionError("unreachable")

    def states(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return Slurm's word for each of the jobs that it knows.

        `sacct` is asked first, since it does not burden the controller; of jobs that it does not know, or
        calls ended, `squeue`: it knows of a requeue at once, and all that there is without accounting.

        Raises:
            NoAnswer: of some job only `squeue` could tell, and it is silent.
        """
        wanted = set(job_ids)
        found: dict[str, str] = {}
        if self._accounting:
            with suppress(NoAnswer):
                found = {key: state for key, state in self._sacct(wanted).items() if key in wanted}
        if doubtful := wanted - {job_id for job_id, state in found.items() if state in ALIVE}:
            found.update({key: state for key, state in self._squeue().items() if key in doubtful})
        return found

    def find(self, name: str, since: float) -> list[str]:
        """Return the ids of the jobs that were submitted under a name of ours.

        Raises:
            NoAnswer: Slurm could not be asked.
        """
        found = set(self._squeue(f"--name={name}"))
        if self._accounting:
            start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
            with suppress(NoAnswer):
                found |= set(parse(_ask([*_SACCT, f"--name={name}", f"--starttime={start}"])))
        return sorted(found, key=lambda job_id: [int(part) for part in job_id.split("_")])

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel exactly these jobs; those that have ended are passed over.

        Raises:
            NoAnswer: some of them may not have been cancelled.
        """
        silence: list[str] = []
        for ids in _portions(list(job_ids)):
            try:
                _ask(["scancel", "--quiet", *ids])
            except NoAnswer as error:
                silence.append(str(error))
        if silence:
            raise NoAnswer("; ".join(dict.fromkeys(silence)))

    def _sacct(self, job_ids: set[str]) -> dict[str, str]:
        roots = sorted({job_id.split("_")[0] for job_id in job_ids})
        found: dict[str, str] = {}
        for portion in _portions(roots):
            try:
                found.update(parse(_ask([*_SACCT, f"--jobs={','.join(portion)}"])))
            except NoAnswer as error:
                if "accounting storage is disabled" in str(error).lower():
                    self._accounting = False
                raise
        return found

    def _squeue(self, *choice: str) -> dict[str, str]:
        return parse(_ask([*_SQUEUE, *choice]))


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """Hide what Slurm has told this process, if it runs in a job itself: sbatch passes it on to the new ones.

    What a user has set, such as SLURM_CONF or SBATCH_ACCOUNT, stays.
    """
    hidden: dict[str, str] = {}
    if "SLURM_JOB_ID" in os.environ:
        names = [name for name in os.environ if name.startswith("SLURM_") and name not in _OF_USERS]
        hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _portions(ids: list[str]) -> Iterator[list[str]]:
    """What fits on one command line."""
    for begin in range(0, len(ids), _IDS_PER_CALL):
        yield ids[begin : begin + _IDS_PER_CALL]


def _ask(command: list[str]) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=True)
    except subprocess.CalledProcessError as error:
        raise NoAnswer(f"{command[0]}: {error.stderr.strip()}") from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NoAnswer(f"{command[0]}: {error}") from None
    return answer.stdout


def parse(text: str) -> dict[str, str]:
    """Read lines of `id|state`; an array's waiting tasks share a line such as `7_[2-5%4]|PENDING`."""
    states: dict[str, str] = {}
    for line in text.splitlines():
        job, _, state = line.strip().partition("|")
        if not job or "." in job:
            continue
        word = state.split()[0] if state else ""  # "CANCELLED by 1000"
        try:
            listed = read_job_id(job)
        except ValueError:  # a long array, cut short as in 7_[1,3,5,...]: squeue --array lists its tasks
            continue
        for parts in listed:
            root, *indices = parts
            if len(indices) == 2:
                states.update({f"{root}_{k}": word for k in range(int(indices[0]), int(indices[1]) + 1)})
            else:
                states["_".join(parts)] = word
    return states
