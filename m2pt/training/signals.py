"""Being asked to stop: remember it, finish the step, save, and say so with an exit code of its own."""

import signal
from types import FrameType, TracebackType
from typing import Any

EXIT_CODE = 75
"""sysexits.h's EX_TEMPFAIL: try again, and the run goes on where it stopped."""

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What Slurm, a terminal and `sbatch --signal` send."""


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


def ignore_signals(worker: int) -> None:
    """Make loader worker `worker` ignore `STOPPING`; Slurm and a terminal send them to it too."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
