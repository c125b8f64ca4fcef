"""What runs inside a cluster job: one Snakemake command, and what becomes of it when the job is warned.

How a warning travels. Slurm sends SIGUSR2 (submitit's word for "your time is nearly up" or "you are being
preempted") to the batch shell alone, because the job is submitted with `--signal=B:USR2@…`; the batch shell
is this Python process, because it was started by `exec`. submitit's handler then calls `checkpoint()`, which
sends the warning signal (SIGUSR1 unless set otherwise) to those descendants that have a handler for it, such
as a training, or that hold it back to pass it on themselves, as `srun` does for its tasks on all nodes. The
shells and the Snakemake in between have neither, would die of it, and are left alone. They do not pass an
exit code of 75 on either, so a program that has saved its state and wants to be started again says so by
creating the file named in the environment variable REQUEUE_MARKER.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import FrameType

import psutil
from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission

REQUEUE_MARKER = "REQUEUE_MARKER"
"""Environment variable that names the file by which a program says: saved, start me again."""

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.2
_GRACE_SHARE = 0.8
_SLURM_EARLY_S = 120
"""A warning of the time limit may come as much earlier than asked for, counted from this process's start.

Slurm allows itself a minute, and the job is older than its Python.
"""
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
        unwarned: how many of these its programs have asked for though the job itself was not warned.
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
    _not_ours: frozenset[psutil.Process] = field(default=frozenset(), init=False)

    def __call__(self) -> int:
        """Run the command and return how often the job was started again.

        Raises:
            JobFailed: the command failed, or its time is up.
            SystemExit: Slurm is ending the job. Nothing is left as a result then: whether the job is over or
                begins anew is Slurm's to say.
        """
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", self.restarts))
        if self.restarts > self.max_restarts:
            raise JobFailed(f"restarts: {self.restarts}, and {self.max_restarts} are allowed")
        self._started = time.monotonic()
        self.marker.unlink(missing_ok=True)
        with _adopting_orphans(), self._noting_termination():
            return self._run()

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
            self.unwarned += 1
            if self.unwarned > _UNWARNED_RESTARTS:
                raise JobFailed(f"exit code {code}: stopped {self.unwarned} times with the job unwarned")
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
        deadline = time.monotonic() + self.warning_s * _GRACE_SHARE
        elapsed = time.monotonic() - self._started if self._started else 0.0
        warned = self._warn_until_exit(deadline)
        if self._terminated:  # saving took longer than the grace: Slurm has queued the job again
            raise _CommandEnded
        if self._process and _exited(self._process) and not self.marker.exists():
            raise _CommandEnded
        at_limit = elapsed > max(self.limit_s / 2, self.limit_s - self.warning_s - _SLURM_EARLY_S)
        if not self.marker.exists() and at_limit:
            hint = "did not save its state in time" if warned else f"handles no {self._signal_name}"
            limit = f"{self.limit_s / 60:.0f} min"
            raise JobFailed(f"TIMEOUT: the time limit of {limit} is up, and the program {hint}")
        if self.restarts >= self.max_restarts:
            raise JobFailed(f"restarts: {self.restarts}, and no more are allowed")
        self._kill_descendants()
        self.restarts += 1
        return DelayedSubmission(SnakemakeTask(**{name: getattr(self, name) for name in _CARRIED}))

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
        found = [each for child in ours for each in (child, *_below(child))]
        return [each for each in found if _lives(each)]

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
    def _noting_termination(self) -> Iterator[None]:
        """Slurm sends SIGTERM to every process of a job that is cancelled or will begin anew: outlive it."""

        def note(number: int, frame: FrameType | None) -> None:
            self._terminated = True

        previous = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)


_CARRIED = tuple(each.name for each in fields(SnakemakeTask) if each.init)


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Become the parent of descendants whose own parent dies.

    Slurm's SIGTERM kills the shells at once and leaves a training, which is saving, without a parent. As a
    child of this process it is waited for, and with this process the job stays, until it has saved.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _exited(process: "subprocess.Popen[bytes]") -> bool:
    flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
    return process.returncode is not None or os.waitid(os.P_PID, process.pid, flags) is not None


def wants(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, or blocks it to wait for it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return False
    masks = (int(line.split()[1], 16) for line in lines if line.startswith(("SigCgt:", "SigBlk:")))
    return any(mask >> (number - 1) & 1 for mask in masks)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
