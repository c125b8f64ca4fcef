"""The executor: submits Snakemake's jobs, watches them, and finds them again after Snakemake died."""

import re
import shlex
import signal
import sys
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.cluster import Cluster, ClusterUnavailable
from snakemake_executor_plugin_submitit.job_state import SubmittedJob, check_job, log_tail
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger
from snakemake_executor_plugin_submitit.local import Debug, Local
from snakemake_executor_plugin_submitit.resources import Request, parse_resources
from snakemake_executor_plugin_submitit.slurm import ACTIVE, Slurm
from snakemake_executor_plugin_submitit.task import SnakemakeTask
from snakemake_executor_plugin_submitit.workdir import check_folder, check_quotable, lock

FOLDER = Path(".snakemake/submitit")
"""Folder of all files of this executor, below the working directory, which all nodes share."""

_CANCEL_TIMEOUT_S = 120
"""Seconds in which a cancelled job ends: Slurm's KillWait, and its epilog."""
_CANCEL_POLL_S = 2

_CLUSTERS = {cluster.name: cluster for cluster in (Slurm, Local, Debug)}


class Executor(RemoteExecutor):
    """Each Snakemake job is one submitit job with one task; its resources set the number of nodes and GPUs.

    In this class "earlier jobs" are those that an earlier Snakemake submitted in the same folder.
    """

    def __post_init__(self) -> None:
        settings = self.workflow.executor_settings
        if settings.cluster not in _CLUSTERS:
            raise WorkflowError(
                f"submitit-cluster must be one of {', '.join(_CLUSTERS)}, got {settings.cluster!r}"
            )
        try:
            self._warning_signal = signal.Signals[settings.warning_signal]
        except KeyError:
            raise WorkflowError(
                "submitit-warning-signal must be the name of a signal, such as SIGUSR1, got "
                f"{settings.warning_signal!r}"
            ) from None
        for name in ("signal_delay", "max_restarts", "array_size", "unknown_checks"):
            value, least = getattr(settings, name), 0 if name == "max_restarts" else 1
            if value < least:
                raise WorkflowError(f"submitit-{name.replace('_', '-')} must be >= {least}, got {value}")
        self._settings = settings
        config_settings = self.workflow.config_settings  # Snakemake's own quotes do not fit every value
        config_settings.config_args = [shlex.quote(each) for each in config_settings.config_args or ()]
        folder = FOLDER.absolute()
        check_folder(str(folder))
        cache = str(self.workflow.sourcecache.runtime_cache_path)
        check_quotable([str(Path(sys.executable).parent), cache])
        for part in ("jobs", "markers", "inputs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = lock(folder / "lock")
        self._submitted: dict[str, SubmittedJob] = {}
        try:
            self._cluster: Cluster = _CLUSTERS[settings.cluster](folder / "jobs", settings.max_restarts)
            self._ledger = Ledger(folder / "ledger.jsonl")
            self._earlier = self._find_earlier_jobs()
        except BaseException:
            self._lock.release()
            raise

    def shutdown(self) -> None:
        """Release the folder."""
        super().shutdown()
        self._lock.release()

    # ---- submitting -------------------------------------------------------------------------------------

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        """Submit jobs, those with equal requests together; adopt those that are on the cluster already."""
        new = []
        for job in jobs:
            self.run_job_pre(job)
            if not self._adopt(job):
                new.append(job)
        groups: dict[tuple[str, Request], list[tuple[JobExecutorInterface, str]]] = {}
        for job in self._cancel_predecessors(new):
            try:
                request = parse_resources(job.name, job.resources, job.threads)
            except WorkflowError as error:
                self._fail(job, str(error))
                continue
            groups.setdefault((job.name, request), []).append((job, _key(job)))
        for (rule, request), group in groups.items():
            remaining = iter(group)
            while batch := list(islice(remaining, self._settings.array_size)):
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
        outputs = {key: map(str, job.output) for job, key in batch}
        self._ledger.intend(outputs, name, self._cluster.name)
        try:
            job_ids = self._cluster.submit(tasks, request, name, comment=_comment(batch[0][0], len(batch)))
        except WorkflowError as error:
            self._ledger.close(keys, "never submitted")
            for job, _ in batch:
                self._fail(job, str(error))
            return
        self._ledger.submitted(dict(zip(keys, job_ids, strict=True)))
        for (job, key), job_id in zip(batch, job_ids, strict=True):
            self._watch(job, key, job_id)

    def _watch(self, job: JobExecutorInterface, key: str, job_id: str) -> None:
        self._submitted[key] = SubmittedJob(job_id, self._cluster.folder)
        log = self._submitted[key].paths.stdout
        self.logger.info(f"{job.name}: {self._cluster.name} job {job_id}, log: {log}")
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=job_id, aux={"key": key}))

    def _fail(self, job: JobExecutorInterface, message: str) -> None:
        self.report_job_error(SubmittedJobInfo(job), msg=f"{message}\n")

    def get_python_executable(self) -> str:
        """Return the path of this Python, quoted."""
        return shlex.quote(sys.executable)

    def get_snakefile(self) -> Path:
        """Return the Snakefile as a path, which Snakemake quotes for a shell."""
        return Path(super().get_snakefile())

    def get_job_args(self, job: JobExecutorInterface, **kwargs: Any) -> str:
        """Return the arguments of the Snakemake inside the job.

        It waits for the job's input, as with any remote executor, but not for the scratch folder of this
        Snakemake, which is gone by the time a job starts that has outlived it.
        """
        files = [str(file) for file in job.get_wait_for_files()]
        if len(files) <= 20:
            words = ["--wait-for-files", *files] if files else []
        else:
            listing = self._folder / "inputs" / f"{_key(job)}.txt"
            listing.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
            words = ["--wait-for-files-file", str(listing)]
        return f"{RealExecutor.get_job_args(self, job)} {shlex.join(words)}"

    # ---- watching ---------------------------------------------------------------------------------------

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Yield the jobs that are still active and report the others; the cluster is asked once for all."""
        if not active_jobs:
            return
        # Ctrl-C may remove jobs at any time, from another thread
        watched = [(info, job) for info in active_jobs if (job := self._submitted.get(info.aux["key"]))]
        async with self.status_rate_limiter:
            try:
                states = self._cluster.states([job.job_id for _, job in watched])
            except ClusterUnavailable as error:
                self.logger.warning(f"{self._cluster.name} does not answer, trying again: {error}")
                states = None
        unknown_checks = self._settings.unknown_checks
        checked = [(info, job, check_job(job, states, unknown_checks)) for info, job in watched]
        # a failed job may be retried: it must not restart beside its successor
        self._cancel([job.job_id for _, job, state in checked if state.succeeded is False])
        for info, job, state in checked:
            if state.succeeded is None:
                yield info
                continue
            self._close([info.aux["key"]], state.reason or "done")
            message = f"{self._cluster.name} job {job.job_id}: {state.reason}"
            if state.succeeded:
                if state.reason:
                    self.logger.info(message)
                self.report_job_success(info)
            else:
                self.report_job_error(info, msg=f"{message}\n{log_tail(job)}\n")

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel every job of this Snakemake that has not ended, and no others.

        The ledger says which: Snakemake's list is empty during a status check, and lacks a submission that is
        under way. Known jobs are cancelled first, since it may take a while to ask about that submission.
        """
        self._cancel_own()
        try:
            self._recover_submissions()
        except ClusterUnavailable as error:
            self.logger.warning(
                f"{self._cluster.name} does not say whether the last submission arrived: {error}"
            )
        self._cancel_own()

    def _cancel_own(self) -> None:
        own = {
            entry.key: entry.job_id
            for entry in self._ledger.entries(self._cluster.name)
            if entry.job_id and entry.key not in self._earlier
        }
        if self._cancel(list(own.values())):
            self._close(list(own), "cancelled")

    def _cancel(self, job_ids: list[str]) -> bool:
        """Cancel jobs; warn and return False if some of them may still run."""
        if not job_ids:
            return True
        try:
            self._cluster.cancel(job_ids)
        except ClusterUnavailable as error:
            self.logger.warning(
                f"{self._cluster.name} did not cancel all of {', '.join(job_ids)}; "
                f"some may still run: {error}"
            )
            return False
        return True

    def _close(self, keys: list[str], outcome: str) -> None:
        self._ledger.close(keys, outcome)
        for key in keys:
            self._submitted.pop(key, None)

    # ---- jobs of an earlier Snakemake -------------------------------------------------------------------

    def _find_earlier_jobs(self) -> dict[str, Entry]:
        """Return the earlier jobs that are still on the cluster, by key.

        For those that have ended, Snakemake has already looked at their outputs.
        """
        try:
            self._recover_submissions()
            entries = [entry for entry in self._ledger.entries(self._cluster.name) if entry.job_id]
            states = self._cluster.states([str(entry.job_id) for entry in entries])
        except ClusterUnavailable as error:
            raise WorkflowError(
                f"the state of the jobs of an earlier run is unknown, since {self._cluster.name} does not "
                f"answer ({error}); try again later."
            ) from None
        found = {entry.key: entry for entry in entries if states.get(str(entry.job_id), "") in ACTIVE}
        self._ledger.close([entry.key for entry in entries if entry.key not in found], "ended meanwhile")
        if found:
            self.logger.info(f"jobs of an earlier run on {self._cluster.name}: {len(found)}")
        return found

    def _recover_submissions(self) -> None:
        """Complete or cancel submissions that were interrupted before their ids were recorded.

        Raises:
            ClusterUnavailable: the cluster does not say whether one arrived.
        """
        for name, entries in self._ledger.without_ids().items():
            if entries[0].cluster != self._cluster.name:
                continue
            job_ids = self._cluster.find(name, entries[0].submitted)
            keys = [entry.key for entry in entries]
            arrived = [SubmittedJob(job_id, self._cluster.folder) for job_id in job_ids]
            # submitit writes a task's file once it knows the id, which the interruption may have prevented
            if len(arrived) == entries[0].size and all(
                job.paths.submitted_pickle.exists() for job in arrived
            ):
                self._ledger.submitted({entry.key: job_ids[entry.index] for entry in entries})
            elif self._cancel(job_ids):
                self._ledger.close(keys, "never submitted")

    def _adopt(self, job: JobExecutorInterface) -> bool:
        """Watch the earlier job that is the same and has the same input, if there is one.

        Not if it has ended since this Snakemake started: its outputs have just been deleted.
        """
        entry = self._earlier.get(_key(job)) if self._earlier else None
        if entry is None or entry.job_id is None or _input_has_changed(job, entry):
            return False
        del self._earlier[entry.key]
        if SubmittedJob(entry.job_id, self._cluster.folder).paths.result_pickle.exists():
            self._ledger.close([entry.key], "ended meanwhile")
            return False
        self.logger.info(f"{job.name}: already on the cluster, not submitted again")
        self._watch(job, entry.key, entry.job_id)
        return True

    def _cancel_predecessors(self, jobs: list[JobExecutorInterface]) -> list[JobExecutorInterface]:
        """Cancel the earlier jobs that make the same files by another command or from older input.

        Returns:
            The jobs that can be submitted. The others fail, since a predecessor is still writing.
        """
        predecessors = {id(job): self._predecessors(job) for job in jobs}
        ended = self._cancel_and_wait(
            {entry.key: entry for found in predecessors.values() for entry in found}
        )
        ready = []
        for job in jobs:
            if active := [entry.job_id for entry in predecessors[id(job)] if entry.key not in ended]:
                self._fail(job, f"{job.name}: job {active[0]} of an earlier run still writes its files")
            else:
                ready.append(job)
        return ready

    def _predecessors(self, job: JobExecutorInterface) -> list[Entry]:
        """Return the earlier jobs that share an output with the job, or are the same with other input."""
        if not self._earlier:
            return []
        key, outputs = _key(job), set(map(str, job.output))
        found = [
            entry
            for entry in self._earlier.values()
            if entry.key == key or not outputs.isdisjoint(entry.outputs)
        ]
        for entry in found:
            reason = "its input has changed" if entry.key == key else "it makes the same files differently"
            self.logger.info(f"{job.name}: cancelling job {entry.job_id} of an earlier run: {reason}")
        return found

    def _cancel_and_wait(self, entries: dict[str, Entry]) -> set[str]:
        """Cancel earlier jobs, wait for their end, and return the keys of those that have ended."""
        job_ids = {key: str(entry.job_id) for key, entry in entries.items()}
        deadline = time.monotonic() + _CANCEL_TIMEOUT_S
        active = set(entries) if self._cancel(list(job_ids.values())) else set()
        ended: set[str] = set()
        while active and time.monotonic() < deadline:
            with suppress(ClusterUnavailable):
                states = self._cluster.states([job_ids[key] for key in active])
                ended |= {key for key in active if states.get(job_ids[key], "") not in ACTIVE}
            active -= ended
            time.sleep(_CANCEL_POLL_S if active else 0)
        self._ledger.close(sorted(ended), "replaced")
        for key in ended:
            del self._earlier[key]
        return ended


def _input_has_changed(job: JobExecutorInterface, entry: Entry) -> bool:
    """Return whether an input of the job has changed since the entry was submitted."""
    inputs = [path for path in job.input if not getattr(path, "is_ancient", False)]
    return any(_mtime(path) > entry.submitted for path in inputs)


def _key(job: JobExecutorInterface) -> str:
    """Return a digest of what a job makes and how, equal for the same job of another Snakemake."""
    jobs = job.jobs if job.is_group() else [job]
    parts = sorted((str(each.name), sorted(map(str, each.output)), _command(each)) for each in jobs)
    return sha256(repr(parts).encode()).hexdigest()[:32]


def _command(job: JobExecutorInterface) -> str:
    """Return the shell command, or the params of a script or a `run:` block."""
    return str(getattr(job, "shellcmd", None) or sorted(map(str, getattr(job, "params", ()))))


def _comment(job: JobExecutorInterface, size: int) -> str:
    """Return the comment that squeue and sacct show, in characters that need no quotes."""
    first = re.sub(r"[^\w ./,+=-]", "_", ", ".join(map(str, job.output)))[:120]
    return first if size == 1 else f"{first} and {size - 1} more"


def _mtime(path: str) -> float:
    file = Path(path)
    return file.stat().st_mtime if file.exists() else time.time()
