"""What runs inside a cluster job: one Snakemake command, and what becomes of it when the job is warned.

How a warning travels. Slurm sends SIGUSR2 (submitit's word for "your time is nearly up" or "you are being
preempted") to the batch shell alone, because the job is submitted with `--signal=B:USR2@…`; the batch shell
is this Python process, because it was started by `exec`. submitit's handler then calls `checkpoint()`, which
sends the warning signal (SIGUSR1 unless set otherwise) to those descendants that have a handler for it, such
as a training, or that hold it back to pass it on themselves, as `srun` does for its tasks on all nodes. The
shells and the Snakemake in between have neither, would die of it, and are left alone. They do not pass an
exit code of 75 on either, so a program that has saved its state and wants to be started again says so by
creating the file named in the environment variable REQUEUE_MARKER. If there is nothing to save and it would
begin anew, it writes `anew` into it.
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

from snakemake_executor_plugin_submitit.own_job import own_job, queue_again
from snakemake_executor_plugin_submitit.processes import adopting_orphans, below, lives, wants

REQUEUE_MARKER = "REQUEUE_MARKER"
"""Environment variable that names the file by which a program says: saved, start me again."""

_POLL_S = 0.2
_GRACE_SHARE = 0.8
_SLURM_EARLY_S = 75
"""Slurm warns of the time limit up to a minute earlier than asked for; and the warning has to get here."""
_STARTED_LATE_S = 60
"""This process may be so much younger than its job."""
_UNWARNED_RESTARTS = 3
"""The job was not warned, its programs were: by hand, or one of several died and the rest was stopped."""


class JobFailed(Exception):
    """The command failed, or must not be started again; the message says why, in one line."""


class _CommandEnded(Exception):
    """Raised out of the signal handler: the command came to its end meanwhile; nothing is to be requeued."""


@dataclass
class SnakemakeTask:
    """A callable for submitit that runs `command` in bash and can be requeued.

    Args:
        command: the shell command of one Snakemake job.
        marker: file that stands for "saved, start me again"; its folder exists.
        warning_signal: number of the signal that programs are warned with.
        warning_s: seconds between Slurm's warning and the end.
        limit_s: the job's time limit in seconds.
        max_restarts: how often the job may be started again, by whomever.
        restarts: how often it was.
        unwarned: how many of these, the last in a row, its programs asked for though the job was not warned.
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
    _asked_by_program: bool = field(default=False, init=False)
    _not_ours: frozenset[psutil.Process] = field(default=frozenset(), init=False)

    def __call__(self) -> int:
        """Run the command and return how often the job was started again.

        Raises:
            JobFailed: the command failed, or its time is up.
            SystemExit: Slurm is ending the job. Nothing is left as a result then: whether the job is over or
                begins anew is Slurm's to say.
        """
        if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", self.restarts))
        if self.restarts > self.max_restarts:
            raise JobFailed(f"restarts: {self.restarts}, and {self.max_restarts} are allowed")
        self._started = time.monotonic()
        self.marker.unlink(missing_ok=True)
        with adopting_orphans(), self._own_handlers():
            try:
                return self._run()
            except subprocess.SubprocessError as error:  # submitit asks Slurm but once
                print(f"asking Slurm again to queue this job: {error}", flush=True)
                queue_again(given_up=lambda: self._terminated)
                raise SystemExit(-1) from None

    def _run(self) -> int:
        environment = {**os.environ, REQUEUE_MARKER: str(self.marker)}
        self._not_ours = frozenset(psutil.Process().children())  # of a Snakemake whose process this is
        try:
            self._process = subprocess.Popen(["bash", "-c", self.command], env=environment)
            code = self._wait_for_exit()
        except _CommandEnded:
            code = self._process.wait() if self._process else 1
        except KeyboardInterrupt:  # without Slurm; submitit leaves this process a second more
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
            self._asked_by_program = not self._is_being_ended()
            if self._asked_by_program and self.unwarned >= _UNWARNED_RESTARTS:
                raise JobFailed(f"exit code {code}: stopped {self.unwarned + 1} times with the job unwarned")
            signal.raise_signal(warning)  # requeue as submitit does
        if code:
            raise JobFailed(f"exit code {code}")
        return self.restarts

    def checkpoint(self) -> DelayedSubmission | None:
        """Have the program save and return what to start again; submitit's signal handler calls this.

        A program that has no handler is stopped, and starts over if the job was preempted. At the job's own
        time limit starting over would come no further, so the job has then failed.

        Raises:
            JobFailed: the job must not be started again.
        """
        began = time.monotonic()
        deadline = began + self.warning_s * _GRACE_SHARE
        warned = self._warn_until_exit(deadline)
        if self._terminated:  # saving took longer than the grace: Slurm has queued the job again
            raise _CommandEnded
        if self._process and _exited(self._process) and not self.marker.exists():
            raise _CommandEnded
        if not self._saved() and self._is_at_limit(began):
            hint = f"handles no {self._signal_name}"
            if self.marker.exists():
                hint = "would begin anew"
            elif warned:
                hint = "did not save its state in time"
            limit = f"{self.limit_s / 60:.0f} min"
            raise JobFailed(f"TIMEOUT: the time limit of {limit} is up, and the program {hint}")
        if self.restarts >= self.max_restarts:
            raise JobFailed(f"restarts: {self.restarts}, and no more are allowed")
        self._kill_descendants()
        self.restarts += 1
        self.unwarned = self.unwarned + 1 if self._asked_by_program else 0
        return DelayedSubmission(SnakemakeTask(**{name: getattr(self, name) for name in _CARRIED}))

    def _saved(self) -> bool:
        return self.marker.exists() and self.marker.read_text().strip() != "anew"

    def _is_at_limit(self, warned: float) -> bool:
        """Whether the warning, at `warned` by `time.monotonic()`, was of the time limit, not a preemption."""
        early = self.warning_s + _SLURM_EARLY_S
        if job := own_job():
            left = job.end - time.time() + (time.monotonic() - warned)
            return not job.preempted and left <= early
        elapsed = warned - self._started if self._started is not None else 0.0
        return elapsed >= self.limit_s - early - _STARTED_LATE_S

    def _is_being_ended(self) -> bool:
        """Whether Slurm is stopping the programs, though it has not warned this process."""
        job = own_job()
        if job is None:
            return False
        return job.preempted or not job.running or job.end - time.time() <= self.warning_s + _SLURM_EARLY_S

    def _warn_until_exit(self, deadline: float) -> bool:
        """Warn each descendant that wants it, once, until the command ends or time is up; were there any?"""
        warned: set[int] = set()
        while self._process and not _exited(self._process) and time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                if process.pid not in warned and wants(process.pid, self.warning_signal):
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
        """Wait without taking any lock, since a signal handler that interrupts this waits as well."""
        assert self._process is not None
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return self._process.wait()

    def _descendants(self) -> list[psutil.Process]:
        """What lives below this process since the command was started, orphans included."""
        ours = set(psutil.Process().children()) - self._not_ours
        found = [each for child in ours for each in (child, *below(child))]
        return [each for each in found if lives(each)]

    def _wait_for_descendants(self) -> None:
        """Wait as long as Slurm lets us."""
        while self._descendants():
            time.sleep(_POLL_S)

    def _terminate_descendants(self) -> None:
        """End them as Slurm does, by SIGTERM, and let them save, also if this process dies meanwhile."""
        for process in self._descendants():
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        self._wait_for_descendants()

    def _kill_descendants(self) -> None:
        for process in self._descendants():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    @contextmanager
    def _own_handlers(self) -> Iterator[None]:
        """Slurm sends SIGTERM to every process of a job that is cancelled or will begin anew: outlive it.

        The SIGCONT that Slurm sends before each signal is left alone: submitit would log it, and what
        `checkpoint` raises while something is being logged is lost in `logging`.
        """

        def note(number: int, frame: FrameType | None) -> None:
            self._terminated = True

        own: dict[signal.Signals, Any] = {signal.SIGTERM: note, signal.SIGCONT: signal.SIG_DFL}
        previous = {number: signal.signal(number, handler) for number, handler in own.items()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


_CARRIED = tuple(each.name for each in fields(SnakemakeTask) if each.init)


def _exited(process: "subprocess.Popen[bytes]") -> bool:
    flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
    return process.returncode is not None or os.waitid(os.P_PID, process.pid, flags) is not None
