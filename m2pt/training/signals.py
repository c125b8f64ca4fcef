"""Being asked to stop: remember it, finish the step, save, and say so with an exit code of its own.

Not every launcher passes that code on (torchrun and Snakemake make 1 of it), so a scheduler's job is told in
another way too: if the environment variable `REQUEUE_MARKER` names a file, it is created once the state is
saved; empty, or with the word `anew` in it if there is no state. Whoever sets the variable deletes the file
before the start; if it is there after a failure, whatever the exit code, the same command is to be started
again. Beside it, with `.failed` added to its name, lies what several processes tell each other: that one has
failed by itself.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from m2pt.atomic import write_json

INTERRUPTED = "interrupted.json"
"""The marker of a command that was asked to stop; it goes on when it is run again."""

EXIT_CODE = 75
"""sysexits.h's EX_TEMPFAIL: try again, and the run goes on where it stopped."""

REQUEUE_MARKER = "REQUEUE_MARKER"
"""Environment variable: the file that tells a scheduler's job "saved, start me again"."""

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""What Slurm, a terminal, `sbatch --signal` and submitit send."""


class Interrupted(SystemExit):
    """Training was asked to stop and has saved its state; the process exits with `EXIT_CODE`."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_CODE)
        self.message = message

    def __str__(self) -> str:
        return self.message


class SignalWatch:
    """Within the block the first of `STOPPING` is kept in `received` instead of ending the process.

    Enter it in the main thread, where Python allows signal handlers.
    """

    received: signal.Signals | None = None

    def __enter__(self) -> "SignalWatch":
        self._previous: dict[signal.Signals, Any] = {s: signal.signal(s, self._remember) for s in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)


def ask_for_requeue(*, anew: bool = False) -> None:
    """Create the file that `REQUEUE_MARKER` names, if it does; last, when everything is on the disk.

    With `anew` nothing is, and after its time limit such a command would come no further another time. Not if
    another process has failed: what started them stops the rest then, by the same signals.
    """
    if (marker := os.environ.get(REQUEUE_MARKER)) and not another_has_failed():
        Path(marker).parent.mkdir(parents=True, exist_ok=True)
        Path(marker).write_text("anew" if anew else "")


def say_failed() -> None:
    """Tell the other processes of this command, before they are stopped, that this one has failed.

    If one has asked for a requeue before, it was stopped first, and this failure comes of that.
    """
    if (path := _failure()) and not Path(os.environ[REQUEUE_MARKER]).exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def forget_failure() -> None:
    """Clear away what `say_failed` left at an earlier attempt, before the processes are started."""
    if path := _failure():
        path.unlink(missing_ok=True)


def another_has_failed() -> bool:
    """Whether a process of this command has said so."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and (path := _failure()) is not None and path.exists()


def _failure() -> Path | None:
    marker = os.environ.get(REQUEUE_MARKER)
    return Path(f"{marker}.failed") if marker else None


def hold_back() -> None:
    """Keep `STOPPING` from ending the process until `stopping_at_once` is entered."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


@contextmanager
def stopping_at_once(directory: Path | None = None) -> Iterator[None]:
    """Within the block, outside a training loop's own watch, one of `STOPPING` ends the process in order.

    There is nothing to save then: `interrupted.json` in `directory` (written by the main process) and
    `ask_for_requeue` say that the command wants to be run again, and the process exits with `EXIT_CODE`. Of
    several processes each ends by itself, and any may ask: the main one may be waiting for another that has
    gone, and be killed before it can.

    Without `directory` there is no marker: the command trains nothing, and begins anew. What `hold_back` has
    kept is acted on as soon as the handlers stand.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        main = os.environ.get("RANK", "0") == "0"
        if directory is not None and main and not another_has_failed():
            write_json(directory / INTERRUPTED, {"reason": name, "exit_code": EXIT_CODE})
        ask_for_requeue(anew=directory is None)
        raise Interrupted(name)

    previous: dict[signal.Signals, Any] = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ignore_signals(worker: int) -> None:
    """Make loader worker `worker` ignore `STOPPING`; Slurm and a terminal send them to it too."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
