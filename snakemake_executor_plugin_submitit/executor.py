"""The executor: submits Snakemake's jobs, watches over them, finds them again after its own death."""

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

from snakemake_executor_plugin_submitit.cluster import Cluster, NoAnswer
from snakemake_executor_plugin_submitit.judgement import Submitted, judge, log_tail
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger
from snakemake_executor_plugin_submitit.local import Debug, Local
from snakemake_executor_plugin_submitit.lock import lock
from snakemake_executor_plugin_submitit.paths import check_folder, check_quotable
from snakemake_executor_plugin_submitit.resources import Request, request_of
from snakemake_executor_plugin_submitit.slurm import ALIVE, Slurm
from snakemake_executor_plugin_submitit.task import SnakemakeTask

FOLDER = Path(".snakemake/submitit")
"""Below the working directory, which all nodes share."""

_ENDING_S = 120
"""What a cancelled job may take to end: Slurm's KillWait, and its epilog."""
_ENDING_POLL_S = 2

_CLUSTERS = {cluster.name: cluster for cluster in (Slurm, Local, Debug)}


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
        given = self.workflow.config_settings  # Snakemake's own quotes do not hold every value
        given.config_args = [shlex.quote(each) for each in given.config_args or ()]
        folder = FOLDER.absolute()
        check_folder(str(folder))
        cache = str(self.workflow.sourcecache.runtime_cache_path)
        check_quotable([str(Path(sys.executable).parent), cache])
        for part in ("jobs", "markers", "inputs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = lock(folder / "lock")
        self._submitted: dict[str, Submitted] = {}
        try:
            self._cluster: Cluster = _CLUSTERS[settings.cluster](folder / "jobs", settings.max_restarts)
            self._ledger = Ledger(folder / "ledger.jsonl")
            self._found_again = self._look_for_jobs()
        except BaseException:
            self._lock.close()
            raise

    def shutdown(self) -> None:
        """End with the workflow."""
        super().shutdown()
        self._lock.close()

    # ---- submitting -------------------------------------------------------------------------------------

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        """Submit jobs, those of equal requests together; take up those that are on the cluster already."""
        rest = []
        for job in jobs:
            self.run_job_pre(job)
            if not self._take_up(job):
                rest.append(job)
        waiting: dict[tuple[str, Request], list[tuple[JobExecutorInterface, str]]] = {}
        for job in self._make_room(rest):
            try:
                request = request_of(job.name, job.resources, job.threads)
            except WorkflowError as error:
                self._refuse(job, str(error))
                continue
            waiting.setdefault((job.name, request), []).append((job, _key(job)))
        for (rule, request), group in waiting.items():
            left = iter(group)
            while batch := list(islice(left, self._settings.array_size)):
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
            self._ledger.closed(keys, "never submitted")
            for job, _ in batch:
                self._refuse(job, str(error))
            return
        self._ledger.submitted(dict(zip(keys, job_ids, strict=True)))
        for (job, key), job_id in zip(batch, job_ids, strict=True):
            self._watch(job, key, job_id)

    def _watch(self, job: JobExecutorInterface, key: str, job_id: str) -> None:
        self._submitted[key] = Submitted(job_id, self._cluster.folder)
        self.logger.info(
            f"{job.name} is job {job_id} of {self._cluster.name}: {self._submitted[key].paths.stdout}"
        )
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=job_id, aux={"key": key}))

    def _refuse(self, job: JobExecutorInterface, message: str) -> None:
        self.report_job_error(SubmittedJobInfo(job), msg=f"{message}\n")

    def get_python_executable(self) -> str:
        """This Python, quoted."""
        return shlex.quote(sys.executable)

    def get_snakefile(self) -> Path:
        """The Snakefile as a path, which Snakemake quotes as a shell reads it."""
        return Path(super().get_snakefile())

    def get_job_args(self, job: JobExecutorInterface, **kwargs: Any) -> str:
        """Arguments of the Snakemake inside the job.

        It waits for the job's input, as that of any remote executor, but not for this controller's scratch
        folder, which is gone when a job begins that has outlived its controller.
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
        """Yield those that go on; report the others. One question to the cluster serves them all."""
        if not active_jobs:
            return
        # Ctrl-C may take jobs away at any moment, from another thread
        watched = [(info, job) for info in active_jobs if (job := self._submitted.get(info.aux["key"]))]
        async with self.status_rate_limiter:
            try:
                states = self._cluster.states([job.job_id for _, job in watched])
            except NoAnswer as error:
                self.logger.warning(f"{self._cluster.name} gives no answer, asking again: {error}")
                states = None
        verdicts = [(info, job, judge(job, states, self._settings.unknown_checks)) for info, job in watched]
        # a failed job may be tried again: it must not come back beside its successor
        self._cancel([job.job_id for _, job, verdict in verdicts if verdict.done is False])
        for info, job, verdict in verdicts:
            if verdict.done is None:
                yield info
                continue
            self._close([info.aux["key"]], verdict.reason or "done")
            if verdict.done:
                if verdict.reason:
                    self.logger.info(f"{self._cluster.name} job {job.job_id}: {verdict.reason}")
                self.report_job_success(info)
            else:
                message = f"{self._cluster.name} job {job.job_id}: {verdict.reason}\n{log_tail(job)}\n"
                self.report_job_error(info, msg=message)

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel every job of this controller that has not ended, and no other.

        Snakemake's list is empty while a status check is under way, and has nothing of a submission under
        way: the ledger is taken. What it knows already goes first, since asking may take a while.
        """
        self._cancel_own()
        try:
            self._answer_submissions()
        except NoAnswer as error:
            self.logger.warning(
                f"{self._cluster.name} does not say whether the last submission arrived: {error}"
            )
        self._cancel_own()

    def _cancel_own(self) -> None:
        own = {
            entry.key: entry.job_id
            for entry in self._ledger.of(self._cluster.name)
            if entry.job_id and entry.key not in self._found_again
        }
        if self._cancel(list(own.values())):
            self._close(list(own), "cancelled")

    def _cancel(self, job_ids: list[str]) -> bool:
        """Cancel jobs; False, and a warning, if some of them may run on."""
        if not job_ids:
            return True
        try:
            self._cluster.cancel(job_ids)
        except NoAnswer as error:
            self.logger.warning(
                f"{self._cluster.name} did not cancel all of {', '.join(job_ids)}; some may run on: {error}"
            )
            return False
        return True

    def _close(self, keys: list[str], outcome: str) -> None:
        self._ledger.closed(keys, outcome)
        for key in keys:
            self._submitted.pop(key, None)

    # ---- finding jobs again -----------------------------------------------------------------------------

    def _look_for_jobs(self) -> dict[str, Entry]:
        """Return the jobs of an earlier controller that are on the cluster still, by key.

        Those that have ended are accounted for by what they made: Snakemake has looked at it.
        """
        try:
            self._answer_submissions()
            entries = [entry for entry in self._ledger.of(self._cluster.name) if entry.job_id]
            states = self._cluster.states([str(entry.job_id) for entry in entries])
        except NoAnswer as error:
            raise WorkflowError(
                f"{self._cluster.name} must say what became of the jobs of an earlier run, and gives no "
                f"answer ({error}); try again later."
            ) from None
        found = {entry.key: entry for entry in entries if states.get(str(entry.job_id), "") in ALIVE}
        self._ledger.closed([entry.key for entry in entries if entry.key not in found], "ended meanwhile")
        if found:
            self.logger.info(f"jobs of an earlier run on {self._cluster.name}: {len(found)}")
        return found

    def _answer_submissions(self) -> None:
        """Complete what was cut short between sending a submission and noting its ids.

        Raises:
            NoAnswer: the cluster does not say whether it arrived.
        """
        for name, entries in self._ledger.unanswered().items():
            if entries[0].cluster != self._cluster.name:
                continue
            job_ids = self._cluster.find(name, entries[0].submitted)
            keys = [entry.key for entry in entries]
            arrived = [Submitted(job_id, self._cluster.folder) for job_id in job_ids]
            # of some submit may not have come as far as writing down what they are to do
            if len(arrived) == entries[0].size and all(
                job.paths.submitted_pickle.exists() for job in arrived
            ):
                self._ledger.submitted({entry.key: job_ids[entry.index] for entry in entries})
            elif self._cancel(job_ids):
                self._ledger.closed(keys, "never submitted")

    def _take_up(self, job: JobExecutorInterface) -> bool:
        """Watch the same job of an earlier controller, if there is one that works on the same input.

        If it has ended since this controller looked, Snakemake has just deleted what it made.
        """
        entry = self._found_again.get(_key(job)) if self._found_again else None
        if entry is None or entry.job_id is None or _input_has_changed(job, entry):
            return False
        del self._found_again[entry.key]
        if Submitted(entry.job_id, self._cluster.folder).paths.result_pickle.exists():
            self._ledger.closed([entry.key], "ended meanwhile")
            return False
        self.logger.info(f"{job.name} is on the cluster already; it is not submitted again.")
        self._watch(job, entry.key, entry.job_id)
        return True

    def _make_room(self, jobs: list[JobExecutorInterface]) -> list[JobExecutorInterface]:
        """Cancel the jobs of an earlier controller that make the same files otherwise, or from older input.

        Returns:
            The jobs that can begin: nothing writes what they make, nor is it still saving.
        """
        predecessors = {id(job): self._predecessors(job) for job in jobs}
        ended = self._end({entry.key: entry for found in predecessors.values() for entry in found})
        ready = []
        for job in jobs:
            if alive := [entry.job_id for entry in predecessors[id(job)] if entry.key not in ended]:
                self._refuse(job, f"{job.name}: job {alive[0]} of an earlier run still makes its files")
            else:
                ready.append(job)
        return ready

    def _predecessors(self, job: JobExecutorInterface) -> list[Entry]:
        """Those of its files, though not by its command; or by its command, from input that has changed."""
        if not self._found_again:
            return []
        key, mine = _key(job), set(map(str, job.output))
        found = [
            entry
            for entry in self._found_again.values()
            if entry.key == key or not mine.isdisjoint(entry.outputs)
        ]
        for entry in found:
            reason = "works on an input that has changed" if entry.key == key else "makes its files otherwise"
            self.logger.info(f"{job.name}: job {entry.job_id} of an earlier run {reason}; it is cancelled.")
        return found

    def _end(self, entries: dict[str, Entry]) -> set[str]:
        """Cancel them and wait until they are gone; return the keys of those that are."""
        job_ids = {key: str(entry.job_id) for key, entry in entries.items()}
        deadline = time.monotonic() + _ENDING_S
        left = set(entries) if self._cancel(list(job_ids.values())) else set()
        ended: set[str] = set()
        while left and time.monotonic() < deadline:
            with suppress(NoAnswer):
                states = self._cluster.states([job_ids[key] for key in left])
                ended |= {key for key in left if states.get(job_ids[key], "") not in ALIVE}
            left -= ended
            time.sleep(_ENDING_POLL_S if left else 0)
        self._ledger.closed(sorted(ended), "replaced")
        for key in ended:
            del self._found_again[key]
        return ended


def _input_has_changed(job: JobExecutorInterface, entry: Entry) -> bool:
    """Whether some input of the job has changed since the entry was submitted."""
    inputs = [path for path in job.input if not getattr(path, "is_ancient", False)]
    return any(_modified(path) > entry.submitted for path in inputs)


def _key(job: JobExecutorInterface) -> str:
    """Digest of what a job makes and how, equal for the same job of another controller."""
    jobs = job.jobs if job.is_group() else [job]
    parts = sorted((str(each.name), sorted(map(str, each.output)), _what_it_does(each)) for each in jobs)
    return sha256(repr(parts).encode()).hexdigest()[:32]


def _what_it_does(job: JobExecutorInterface) -> str:
    """The command, or what a script or a `run:` block is given."""
    return str(getattr(job, "shellcmd", None) or sorted(map(str, getattr(job, "params", ()))))


def _comment(job: JobExecutorInterface, size: int) -> str:
    """What squeue and sacct show of it beside its name, in letters that need no quotes."""
    first = re.sub(r"[^\w ./,+=-]", "_", ", ".join(map(str, job.output)))[:120]
    return first if size == 1 else f"{first} and {size - 1} more"


def _modified(path: str) -> float:
    file = Path(path)
    return file.stat().st_mtime if file.exists() else time.time()
