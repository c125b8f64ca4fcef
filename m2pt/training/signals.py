"""Stop signals: finish the step, save, and exit with a special code.

Not every launcher passes that code on (torchrun and Snakemake turn it into 1). So if the environment variable
`REQUEUE_MARKER` names a file, it is created once the state is saved: empty, or with the word `anew` in it if
there is no state to resume from. Whoever sets the variable deletes the file before the start; if it exists
after a failure, whatever the exit code, the same command is to be started again.

A second file, with `.failed` added to its name, tells the other processes of the same command that one of
them failed on its own.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from m2pt.atomic import write_json
from m2pt.run_files import INTERRUPTED

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: run the same command again to resume."""

REQUEUE_MARKER = "REQUEUE_MARKER"
"""Environment variable with the path of the file that means "saved, start me again"."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""Sent by Slurm, a terminal, `sbatch --signal` and submitit."""


class Interrupted(SystemExit):
    """A stop signal was received and the state is saved; the process exits with `EXIT_CODE`."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_CODE)
        self.message = message

    def __str__(self) -> str:
        return self.message


class SignalWatch:
    """Within the block, stores the first of `STOP_SIGNALS` instead of letting it end the process.

    Enter it in the main thread, where Python allows signal handlers.
    """

    received: signal.Signals | None = None
    """The first signal, if there was one."""

    def __enter__(self) -> "SignalWatch":
        self._previous: dict[signal.Signals, Any] = {s: signal.signal(s, self._store) for s in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _store(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)


def request_requeue(*, restart: bool = False) -> None:
    """Create the file that `REQUEUE_MARKER` names, if it is set; call this last, after everything is saved.

    Nothing is created if another process failed: whatever started them stops the rest by the same signals.

    Args:
        restart: nothing is saved, so that the command starts over. A scheduler does not requeue such a
            command after its time limit: it would not get further the next time.
    """
    if (marker := os.environ.get(REQUEUE_MARKER)) and not another_process_failed():
        Path(marker).parent.mkdir(parents=True, exist_ok=True)
        Path(marker).write_text("anew" if restart else "")


def report_failure() -> None:
    """Report to the other processes of this command, before they are stopped, that this one failed.

    If one of them has requested a requeue, it was stopped first and this failure is a consequence: nothing is
    reported.
    """
    if (path := _failure_file()) and not Path(os.environ[REQUEUE_MARKER]).exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def clear_failure() -> None:
    """Delete the report of `report_failure` in an earlier attempt, before the processes are started."""
    if path := _failure_file():
        path.unlink(missing_ok=True)


def another_process_failed() -> bool:
    """Return whether a process of this command called `report_failure`."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and (path := _failure_file()) is not None and path.exists()


def _failure_file() -> Path | None:
    marker = os.environ.get(REQUEUE_MARKER)
    return Path(f"{marker}.failed") if marker else None


def block_stop_signals() -> None:
    """Hold `STOP_SIGNALS` back until `exit_on_stop_signal` is entered."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


@contextmanager
def exit_on_stop_signal(directory: Path | None = None) -> Iterator[None]:
    """Within the block, but outside the training loop, exit with `EXIT_CODE` at one of `STOP_SIGNALS`.

    There is nothing to save then: `interrupted.json` in `directory` (written by the main process) and
    `request_requeue` say that the command is to be run again. Each of several processes exits on its own, and
    any may request the requeue: the main one may be waiting for a process that is gone, and be killed before
    it can.

    Signals held back by `block_stop_signals` are acted on as soon as the handlers are installed.

    Args:
        directory: of the run; None for a command that does not train: it leaves no marker and starts over.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        main = os.environ.get("RANK", "0") == "0"
        if directory is not None and main and not another_process_failed():
            write_json(directory / INTERRUPTED, {"reason": name, "exit_code": EXIT_CODE})
        request_requeue(restart=directory is None)
        raise Interrupted(name)

    previous: dict[signal.Signals, Any] = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ignore_stop_signals(worker: int) -> None:
    """Make loader worker `worker` ignore `STOP_SIGNALS`, which Slurm and a terminal send to it too."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
