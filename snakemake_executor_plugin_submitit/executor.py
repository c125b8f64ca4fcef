"""The executor: submits Snakemake's jobs, watches over them, finds them again after its own death."""

import signal
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.utils import format_cli_arg

from snakemake_executor_plugin_submitit.judgement import Submitted, judge, log_tail
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger
from snakemake_executor_plugin_submitit.local import Debug, Local
from snakemake_executor_plugin_submitit.resources import Request, request_of
from snakemake_executor_plugin_submitit.slurm import ALIVE, NoAnswer, Slurm
from snakemake_executor_plugin_submitit.task import SnakemakeTask

FOLDER = Path(".snakemake/submitit")
"""Below the working directory, which all nodes share."""

_CLUSTERS = {cluster.name: cluster for cluster in (Slurm, Local, Debug)}


class Cluster(Protocol):
    """What a kind of cluster can do; see `slurm.Slurm`."""

    name: str
    folder: Path

    def submit(self, tasks: Sequence[SnakemakeTask], request: Request, name: str, comment: str) -> list[str]:
        """Submit tasks of one request under a name and return their job ids."""
        ...

    def states(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return a word for each job that the cluster knows."""
        ...

    def find(self, name: str, since: float) -> list[str]:
        """Return the ids of the jobs that were submitted under a name."""
        ...

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel these jobs and no other."""
        ...


class Executor(RemoteExecutor):
    """Each Snakemake job is one submitit job of one task; its resources say on how many nodes and GPUs."""

    def __post_init__(self) -> None:
        settings = self.workflow.executor_settings
        if settings.cluster not in _CLUSTERS:
            raise WorkflowError(f"submitit-cluster is {settings.cluster!r}: choose {', '.join(_CLUSTERS)}")
        try:
            self._warning_signal = signal.Signals[settings.warning_signal]
        except KeyError:
            raise WorkflowError(
                f"submitit-warning-signal is {settings.warning_signal!r}: give a signal's name, "
                "such as SIGUSR1"
            ) from None
        for name in ("signal_delay", "max_restarts", "array_size", "unknown_checks"):
            if getattr(settings, name) < (0 if name == "max_restarts" else 1):
                raise WorkflowError(
                    f"submitit-{name.replace('_', '-')} is {getattr(settings, name)}: too small"
                )
        self._settings = settings
        folder = FOLDER.absolute()
        for part in ("jobs", "markers", "inputs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._cluster: Cluster = _CLUSTERS[settings.cluster](folder / "jobs", settings.max_restarts)
        self._ledger = Ledger(folder / "ledger.jsonl")
        self._submitted: dict[str, Submitted] = {}
        self._found_again = self._look_for_jobs()

    # ---- submitting -------------------------------------------------------------------------------------

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        """Submit jobs, those of equal requests together; take up those that are on the cluster already."""
        waiting: dict[tuple[str, Request], list[tuple[JobExecutorInterface, str]]] = {}
        for job in jobs:
            self.run_job_pre(job)
            key = _key(job)
            if (entry := self._found_again.pop(key, None)) and self._take_up(job, entry):
                continue
            try:
                request = request_of(job.name, job.resources, job.threads)
            except WorkflowError as error:
                self._refuse(job, str(error))
                continue
            waiting.setdefault((job.name, request), []).append((job, key))
        for (rule, request), group in waiting.items():
            rest = iter(group)
            while batch := list(islice(rest, self._settings.array_size)):
                self._submit(rule, request, batch)

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit one job."""
        self.run_jobs([job])

    def _submit(self, rule: str, request: Request, batch: list[tuple[JobExecutorInterface, str]]) -> None:
        name = f"{rule}-{uuid.uuid4().hex[:8]}"
        keys = [key for _, key in batch]
        limit_s = request.runtime * 60
        tasks = [
            SnakemakeTask(
                command=self.format_job_exec(job),
                marker=self._folder / "markers" / f"{name}.{index}",
                warning_signal=self._warning_signal,
                warning_s=min(self._settings.signal_delay, limit_s // 2),
                limit_s=limit_s,
                max_restarts=self._settings.max_restarts,
            )
            for index, (job, _) in enumerate(batch)
        ]
        self._ledger.intend(keys, name, self._cluster.name)
        try:
            job_ids = self._cluster.submit(tasks, request, name, comment=_comment(batch[0][0], len(batch)))
        except WorkflowError as error:
            self._ledger.closed(keys, "never submitted")
            for job, _ in batch:
                self._refuse(job, str(error))
            return
        self._ledger.submitted(dict(zip(keys, job_ids, strict=True)))
        for (job, key), job_id in zip(batch, job_ids, strict=True):
            self._watch(job, key, job_id)

    def _watch(self, job: JobExecutorInterface, key: str, job_id: str) -> None:
        self._submitted[key] = Submitted(key, job_id, self._cluster.folder)
        self.logger.info(
            f"{job.name} is job {job_id} of {self._cluster.name}: {self._submitted[key].paths.stdout}"
        )
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=job_id, aux={"key": key}))

    def _refuse(self, job: JobExecutorInterface, message: str) -> None:
        self.report_job_error(SubmittedJobInfo(job), msg=f"{message}\n")

    def get_job_args(self, job: JobExecutorInterface, **kwargs: Any) -> str:
        """Arguments of the Snakemake inside the job.

        It waits for the job's input, as that of any remote executor, but not for this controller's scratch
        folder, which is gone when a job begins that has outlived its controller.
        """
        files = list(job.get_wait_for_files())
        if len(files) <= 20:
            return f"{RealExecutor.get_job_args(self, job)} {format_cli_arg('--wait-for-files', files)}"
        listing = self._folder / "inputs" / f"{_key(job)}.txt"
        listing.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
        return f"{RealExecutor.get_job_args(self, job)} {format_cli_arg('--wait-for-files-file', listing)}"

    # ---- watching ---------------------------------------------------------------------------------------

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Yield those that go on; report the others. One question to the cluster serves them all."""
        if not active_jobs:
            return
        async with self.status_rate_limiter:
            try:
                states = self._cluster.states(self._submitted[info.aux["key"]].job_id for info in active_jobs)
            except NoAnswer as error:
                self.logger.warning(f"{self._cluster.name} gives no answer, asking again: {error}")
                states = None
        for info in active_jobs:
            key = info.aux["key"]
            job = self._submitted[key]
            verdict = judge(job, states, self._settings.unknown_checks)
            if verdict.done is None:
                yield info
                continue
            self._close([key], "done" if verdict.done else verdict.reason)
            if verdict.done:
                self.report_job_success(info)
            else:
                said = f"{self._cluster.name} job {job.job_id}: {verdict.reason}\n{log_tail(job)}\n"
                self.report_job_error(info, msg=said)

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel every job of this controller that has not ended, and no other.

        Snakemake's list is empty while a status check is under way, so the executor's own is taken.
        """
        self._answer_submissions()
        keys = list(self._submitted)
        self._cluster.cancel(job.job_id for job in self._submitted.values())
        self._close(keys, "cancelled")

    def _close(self, keys: list[str], outcome: str) -> None:
        self._ledger.closed(keys, outcome)
        for key in keys:
            self._submitted.pop(key, None)

    # ---- finding jobs again -----------------------------------------------------------------------------

    def _look_for_jobs(self) -> dict[str, Entry]:
        """Return the jobs of an earlier controller that died, by key: they run, or have ended since."""
        self._answer_submissions()
        found = {
            key: entry for key, entry in self._ledger.open.items() if entry.cluster == self._cluster.name
        }
        try:
            self._states_found = self._cluster.states(str(entry.job_id) for entry in found.values())
        except NoAnswer as error:
            raise WorkflowError(
                f"{self._cluster.name} must say what became of {len(found)} jobs of an earlier run, and "
                f"gives no answer ({error}); try again later."
            ) from None
        if found:
            self.logger.info(f"{len(found)} jobs of an earlier run may be on {self._cluster.name} still.")
        return found

    def _answer_submissions(self) -> None:
        """Complete what was cut short between sending a submission and noting its ids."""
        for name, entries in self._ledger.unanswered().items():
            if entries[0].cluster != self._cluster.name:
                continue
            try:
                job_ids = self._cluster.find(name, entries[0].submitted)
            except NoAnswer as error:
                raise WorkflowError(
                    f"{self._cluster.name} must say whether submission {name} of an earlier run arrived, and "
                    f"gives no answer ({error}); try again later."
                ) from None
            keys = [entry.key for entry in entries]
            if len(job_ids) != entries[0].size:
                self._cluster.cancel(job_ids)
                self._ledger.closed(keys, "never submitted")
                continue
            ids = {entry.key: job_ids[entry.index] for entry in entries}
            self._ledger.submitted(ids)

    def _take_up(self, job: JobExecutorInterface, entry: Entry) -> bool:
        """Watch a job of an earlier controller again, unless it failed or its input has changed since.

        A failed one is submitted anew, since the user has started the workflow anew.
        """
        assert entry.job_id is not None
        earlier = Submitted(entry.key, entry.job_id, self._cluster.folder)
        stale = any(_modified(path) > entry.submitted for path in job.input)
        made = judge(earlier, None, 0).done and all(Path(path).exists() for path in job.output)
        if not stale and (made or self._states_found.get(entry.job_id, "") in ALIVE):
            self.logger.info(f"{job.name} is on the cluster already; it is not submitted again.")
            self._watch(job, entry.key, entry.job_id)
            return True
        self._cluster.cancel([entry.job_id])
        self._ledger.closed([entry.key], "replaced")
        return False


def _key(job: JobExecutorInterface) -> str:
    """Digest of what a job makes and how, equal for the same job of another controller."""
    jobs = job.jobs if job.is_group() else [job]
    parts = sorted(
        (str(each.name), sorted(map(str, each.output)), str(getattr(each, "shellcmd", None))) for each in jobs
    )
    return sha256(repr(parts).encode()).hexdigest()[:32]


def _comment(job: JobExecutorInterface, size: int) -> str:
    """What squeue and sacct show of it beside its name."""
    first = ", ".join(map(str, job.output))[:120]
    return first if size == 1 else f"{first} and {size - 1} more"


def _modified(path: str) -> float:
    file = Path(path)
    return file.stat().st_mtime if file.exists() else time.time()
