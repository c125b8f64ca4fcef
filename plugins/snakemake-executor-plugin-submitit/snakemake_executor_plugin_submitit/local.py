"""Jobs as processes of this machine, by submitit's local executor, or, to debug, in Snakemake's process."""

import os
import shlex
import signal
import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
from snakemake_interface_common.exceptions import WorkflowError
from submitit import DebugExecutor, LocalExecutor
from submitit.core.utils import cloudpickle_dump, temporary_save_path

from snakemake_executor_plugin_submitit.processes import descendants, is_alive
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.task import REQUEUE_MARKER, JobFailed, SnakemakeTask

_SAVING_S = 60
"""Seconds in which programs may save when their jobs are cancelled."""
_POLL_S = 0.2
_MAX_RESTARTS = 5
"""submitit starts a local job at most six times."""


class Local:
    """Jobs as processes with a time limit, which outlive Snakemake."""

    name = "local"

    def __init__(self, folder: Path, max_restarts: int) -> None:
        self.folder = folder
        self._submitit = LocalExecutor(folder, max_num_timeout=max_restarts + 1)
        self._children: list[object] = []  # submitit's jobs: they reap their processes

    def submit(self, tasks: Sequence[SnakemakeTask], request: Request, name: str, comment: str) -> list[str]:
        """Start the tasks and return their process ids.

        Raises:
            WorkflowError: they request more than one node.
        """
        if request.nodes > 1:
            raise WorkflowError(f"{name}: resource nodes={request.nodes}, but the local cluster has one node")
        self._submitit.update_parameters(
            timeout_min=request.runtime,
            signal_delay_s=tasks[0].warning_s,
            stderr_to_stdout=True,
        )
        return [self._start(task) for task in tasks]

    def _start(self, task: SnakemakeTask) -> str:
        task = replace(
            task,
            command=f"{_visible_gpus()}\n{task.command}",
            max_restarts=min(task.max_restarts, _MAX_RESTARTS),
        )
        started = time.time()
        job = self._submitit.submit(task)
        self._children.append(job)
        result = job.paths.result_pickle  # perhaps that of an earlier job with the same process id
        if result.exists() and result.stat().st_mtime < started:
            result.unlink()
        return job.job_id

    def states(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return RUNNING or ENDED for each job."""
        for job in self._children:
            job.done()  # type: ignore[attr-defined]
        return {job_id: "RUNNING" if self._process(job_id) else "ENDED" for job_id in job_ids}

    def find(self, name: str, since: float) -> list[str]:
        """Return nothing: a process has no name to find it by."""
        return []

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Interrupt these processes, wait while their programs save, and kill what is left after a minute.

        Ctrl-C in a terminal reaches all of them as well: the process of a job may be gone while its programs
        are saving. Programs without a job's process get SIGTERM from here.
        """
        cancelled = set(job_ids)
        for process in filter(None, map(self._process, cancelled)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _SAVING_S
        terminated: set[psutil.Process] = set()
        while (left := self._programs(cancelled)) and time.monotonic() < deadline:
            for program, job_id in left.items():
                if program not in terminated and self._process(job_id) is None:
                    terminated.add(program)
                    with suppress(psutil.NoSuchProcess):
                        program.terminate()
            time.sleep(_POLL_S)
        for program in left:
            with suppress(psutil.NoSuchProcess):
                program.kill()

    def _programs(self, job_ids: set[str]) -> dict[psutil.Process, str]:
        """Return the living programs of these jobs: descendants of the jobs' processes, and orphans."""
        found = {
            program: job_id
            for job_id in job_ids
            if (job := self._process(job_id))
            for program in descendants(job)
        }
        orphans = {program: self._job_of(program) for program in psutil.process_iter()}
        found |= {program: job_id for program, job_id in orphans.items() if job_id in job_ids}
        return {program: job_id for program, job_id in found.items() if is_alive(program)}

    def _process(self, job_id: str) -> psutil.Process | None:
        """Return the process of a job if it lives, but no other process that has been given its id since."""
        try:
            process = psutil.Process(int(job_id))
            ours = str(self.folder) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return process if ours else None

    def _job_of(self, program: psutil.Process) -> str | None:
        """Return the job whose command started a program, even if the job's own process is gone."""
        try:
            environment = program.environ()
        except psutil.Error:
            return None
        ours = environment.get(REQUEUE_MARKER, "").startswith(f"{self.folder.parent}/")
        return environment.get("SUBMITIT_LOCAL_JOB_ID") if ours else None


def _visible_gpus() -> str:
    """Return the bash line that shows a job the GPUs that Snakemake sees.

    submitit would hide them, or show all jobs the same first ones.
    """
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if devices is None:
        return "unset CUDA_VISIBLE_DEVICES"
    return f"export CUDA_VISIBLE_DEVICES={shlex.quote(devices)}"


class Debug:
    """Jobs run at once in Snakemake's own process, with its terminal and debugger."""

    name = "debug"

    def __init__(self, folder: Path, max_restarts: int) -> None:
        self.folder = folder
        self._submitit = DebugExecutor(folder)

    def submit(self, tasks: Sequence[SnakemakeTask], request: Request, name: str, comment: str) -> list[str]:
        """Run the tasks one after another and write their results where the other clusters write them."""
        jobs = [self._submitit.submit(task) for task in tasks]
        for job in jobs:
            try:
                result = ("success", job.submission().result())
            except JobFailed:
                result = ("error", traceback.format_exc())
            job.paths.stdout.write_text("The job ran inside Snakemake; its output is in that of Snakemake.\n")
            with temporary_save_path(job.paths.result_pickle) as scratch:
                cloudpickle_dump(result, scratch)
        return [job.job_id for job in jobs]

    def states(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return ENDED for each job."""
        return dict.fromkeys(job_ids, "ENDED")

    def find(self, name: str, since: float) -> list[str]:
        """Return nothing: the jobs ended with Snakemake."""
        return []

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Do nothing: no job runs beside this call."""
