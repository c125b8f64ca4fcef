"""The process of a cluster job: it runs one Snakemake command, warns its programs and requeues the job.

How a warning travels: before the time limit and before a preemption Slurm sends SIGUSR2, the signal that
submitit handles, to the batch shell alone, because the job is submitted with `--signal=B:USR2@...`. The batch
shell is this Python process, because it was started by `exec`. submitit's handler calls `checkpoint()`, which
sends the warning signal (SIGUSR1 by default) to those descendants that handle it, such as a training, or that
block it to forward it themselves, as `srun` does for its tasks on all nodes. The shells and the Snakemake in
between do neither and would die, so they get no signal.

Neither do they pass on a program's exit code. A program that has saved its state and wants to be restarted
therefore creates the file named by the environment variable REQUEUE_MARKER. If it had nothing to save and
would start from the beginning, it writes `anew` into the file.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission

from snakemake_executor_plugin_submitit.allocation import current_allocation, requeue
from snakemake_executor_plugin_submitit.processes import (
    adopting_orphans,
    descendants,
    handles_signal,
    is_alive,
)

REQUEUE_MARKER = "REQUEUE_MARKER"
"""Environment variable that names the file by which a program asks to be restarted."""

_POLL_S = 0.2
_SAVING_SHARE = 0.8
"""Part of the time between warning and end in which programs may save."""
_EARLY_S = 75
"""Slurm warns up to a minute earlier than requested, and the warning takes a while to arrive."""
_LATE_START_S = 60
"""This process may start that much later than its job."""
_MAX_UNWARNED_RESTARTS = 3
"""Restarts in a row that programs may request without a warning: somebody sent them the signal, or one of
several processes died and the others were stopped."""


class JobFailed(Exception):
    """The command failed or must not be restarted; the message is one line."""


class _CommandEnded(Exception):
    """Raised in the signal handler: the command has ended meanwhile, so that nothing is requeued."""


@dataclass
class SnakemakeTask:
    """A callable for submitit that runs `command` in bash and can be requeued.

    Args:
        command: the shell command of one Snakemake job.
        marker: file that a program creates to be restarted; its folder exists.
        warning_signal: number of the signal that warns programs.
        warning_s: seconds between Slurm's warning and the end.
        limit_s: the job's time limit in seconds.
        max_restarts: largest number of restarts, whoever causes them.
        restarts: restarts so far.
        unwarned: how many of the last restarts in a row programs requested without a warning to the job.
    """

    command: str
    marker: Path
    warning_signal: int
    warning_s: int
    limit_s: int
    max_restarts: int
    restarts: int = 0
    unwarned: int = 0
    _started: float | None = field(default=None, init=False)
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _terminated: bool = field(default=False, init=False)
    _requested_by_program: bool = field(default=False, init=False)
    _earlier_children: frozenset[psutil.Process] = field(default=frozenset(), init=False)

    def __call__(self) -> int:
        """Run the command and return the number of restarts.

        Raises:
            JobFailed: the command failed or has reached its time limit.
            SystemExit: Slurm is ending the job. There is no result then, since Slurm decides whether the job
                is over or restarts.
        """
        if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", self.restarts))
        if self.restarts > self.max_restarts:
            raise JobFailed(f"restarted {self.restarts} times; at most {self.max_restarts} are allowed")
        self._started = time.monotonic()
        self.marker.unlink(missing_ok=True)
        with adopting_orphans(), self._signal_handlers():
            try:
                return self._run()
            except subprocess.SubprocessError as error:  # submitit tries only once
                print(f"Slurm did not requeue this job, trying again: {error}", flush=True)
                requeue(is_cancelled=lambda: self._terminated)
                raise SystemExit(-1) from None

    def _run(self) -> int:
        environment = {**os.environ, REQUEUE_MARKER: str(self.marker)}
        self._earlier_children = frozenset(psutil.Process().children())  # of Snakemake, on cluster `debug`
        try:
            self._process = subprocess.Popen(["bash", "-c", self.command], env=environment)
            code = self._wait_for_exit()
        except _CommandEnded:
            code = self._process.wait() if self._process else 1
        except KeyboardInterrupt:  # cluster `local`; submitit kills this process a second later
            self._terminate_descendants()
            raise
        except BaseException:
            self._kill_descendants()
            raise
        if self._terminated:
            self._wait_for_descendants()
            raise SystemExit(128 + signal.SIGTERM)
        warning = JobEnvironment._usr_sig()
        if code and self.marker.exists() and callable(signal.getsignal(warning)):
            self._requested_by_program = not self._is_being_ended()
            if self._requested_by_program and self.unwarned >= _MAX_UNWARNED_RESTARTS:
                requests = self.unwarned + 1
                raise JobFailed(f"exit code {code}: requested {requests} restarts in a row without a warning")
            signal.raise_signal(warning)  # requeue as submitit does
        if code:
            raise JobFailed(f"exit code {code}")
        return self.restarts

    def checkpoint(self) -> DelayedSubmission | None:
        """Let the program save and return the task to restart; submitit's signal handler calls this.

        A program without a handler is stopped. It starts over if the job is preempted. At the job's own time
        limit it would get no further by starting over, so the job fails.

        Raises:
            JobFailed: the job must not be restarted.
        """
        warning_time = time.monotonic()
        deadline = warning_time + self.warning_s * _SAVING_SHARE
        warned = self._warn_until_exit(deadline)
        if self._terminated:  # saving took longer than the grace time: Slurm has requeued the job
            raise _CommandEnded
        if self._process and _exited(self._process) and not self.marker.exists():
            raise _CommandEnded
        if not self._saved() and self._is_at_limit(warning_time):
            hint = f"does not handle {self._signal_name}"
            if self.marker.exists():
                hint = "would start from the beginning"
            elif warned:
                hint = "did not save its state in time"
            limit = f"{self.limit_s / 60:.0f} min"
            raise JobFailed(f"TIMEOUT: reached the time limit of {limit}, and the program {hint}")
        if self.restarts >= self.max_restarts:
            raise JobFailed(f"restarted {self.restarts} times; no more restarts are allowed")
        self._kill_descendants()
        self.restarts += 1
        self.unwarned = self.unwarned + 1 if self._requested_by_program else 0
        return DelayedSubmission(SnakemakeTask(**{name: getattr(self, name) for name in _ARGUMENTS}))

    def _saved(self) -> bool:
        return self.marker.exists() and self.marker.read_text().strip() != "anew"

    def _is_at_limit(self, warning_time: float) -> bool:
        """Return whether the warning was about the time limit and not about a preemption.

        Args:
            warning_time: when it arrived, as of `time.monotonic()`.
        """
        early = self.warning_s + _EARLY_S
        if job := current_allocation():
            left = job.end - time.time() + (time.monotonic() - warning_time)
            return not job.preempted and left <= early
        elapsed = warning_time - self._started if self._started is not None else 0.0
        return elapsed >= self.limit_s - early - _LATE_START_S

    def _is_being_ended(self) -> bool:
        """Return whether Slurm is stopping the programs although it has not warned this process."""
        job = current_allocation()
        if job is None:
            return False
        return job.preempted or not job.running or job.end - time.time() <= self.warning_s + _EARLY_S

    def _warn_until_exit(self, deadline: float) -> bool:
        """Warn each descendant that handles the signal, until the command ends or the deadline has passed.

        Returns:
            Whether any process was warned.
        """
        warned: set[int] = set()
        while self._process and not _exited(self._process) and time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                if process.pid not in warned and handles_signal(process.pid, self.warning_signal):
                    warned.add(process.pid)
                    print(f"forwarding {self._signal_name} to {process.pid}", flush=True)
                    with suppress(ProcessLookupError):  # it has ended meanwhile
                        os.kill(process.pid, self.warning_signal)
            time.sleep(_POLL_S)
        return bool(warned)

    @property
    def _signal_name(self) -> str:
        return signal.Signals(self.warning_signal).name

    def _wait_for_exit(self) -> int:
        """Wait without taking a lock of `Popen`: a signal handler that interrupts this waits as well."""
        assert self._process is not None
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return self._process.wait()

    def _descendants(self) -> list[psutil.Process]:
        """Return the living descendants that the command has started, orphans included."""
        children = set(psutil.Process().children()) - self._earlier_children
        found = [process for child in children for process in (child, *descendants(child))]
        return [process for process in found if is_alive(process)]

    def _wait_for_descendants(self) -> None:
        """Wait until they have ended or Slurm kills this process."""
        while self._descendants():
            time.sleep(_POLL_S)

    def _terminate_descendants(self) -> None:
        """End them as Slurm does, by SIGTERM, and let them save, even if this process dies meanwhile."""
        for process in self._descendants():
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        self._wait_for_descendants()

    def _kill_descendants(self) -> None:
        for process in self._descendants():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    @contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        """Survive SIGTERM, which Slurm sends to every process of a job that is cancelled or requeued.

        SIGCONT, which Slurm sends before each signal, gets its default handler: submitit's would log it, and
        an exception that `checkpoint` raises while a message is being logged is lost in `logging`.
        """

        def set_terminated(number: int, frame: FrameType | None) -> None:
            self._terminated = True

        handlers: dict[signal.Signals, Any] = {signal.SIGTERM: set_terminated, signal.SIGCONT: signal.SIG_DFL}
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


_ARGUMENTS = tuple(each.name for each in fields(SnakemakeTask) if each.init)


def _exited(process: "subprocess.Popen[bytes]") -> bool:
    flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
    return process.returncode is not None or os.waitid(os.P_PID, process.pid, flags) is not None
