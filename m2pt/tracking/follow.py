"""Run the tracker on a results folder, once or until it is stopped, in a single process."""

import os
import select
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType

from m2pt.errors import InputError
from m2pt.locks import LockedError, locked
from m2pt.run_files import TRACKING
from m2pt.tracking.liveness import process_exists
from m2pt.tracking.tracker import Tracker, Unreachable

_MAX_PAUSE = 6
"""Longest pause while the server is down, in intervals."""

_PATIENCE = 30.0
"""Seconds that the tracker of a new workflow waits for that of a killed one to finish."""


def mirror_once(results: Path, uri: str | None) -> int:
    """Send everything about the runs below `results` that MLflow lacks; return 0 on success, else 1.

    `uri` is an MLflow tracking URI, None for the SQLite store in `results`.

    Raises:
        InputError: `results` does not exist, another tracker mirrors it, or MLflow does not support the URI.
    """
    _check_folder(results)
    with tracker_lock(results):
        session = _Session(Tracker(results, uri))
        session.mirror()
        session.report_pending()
        return 1 if session.problems else 0


def follow(results: Path, uri: str | None, *, interval: float, owner: int | None = None) -> int:
    """Mirror the runs below `results` until SIGTERM, SIGINT or the end of process `owner`; return 0.

    Checks for new data every `interval` seconds and makes a last pass before it ends. Errors of the server do
    not stop it; while the server does not answer, the pauses double, up to six intervals.

    Raises:
        InputError: as for `mirror_once`.
    """
    stop = _StopRequest()
    os.nice(10)  # trainings have priority
    _check_folder(results)
    with tracker_lock(results, patience=_PATIENCE if owner else 0.0):
        session = _Session(Tracker(results, uri))
        _log(f"mirroring {results} to {session.tracker.store.masked_uri}")
        pause = 0.0
        while not stop.arrives_within(pause) and (owner is None or process_exists(owner)):
            pause = interval if session.mirror() else min(2 * max(pause, interval), _MAX_PAUSE * interval)
        session.mirror()
        session.report_pending()
        _log("stopped")
    return 0


@contextmanager
def tracker_lock(results: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of the results folder; wait up to `patience` seconds for another tracker to end.

    Raises:
        InputError: another tracker mirrors this folder.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(results / TRACKING / "lock", timeout=patience))
        except LockedError as error:
            raise InputError(
                f"{results}: {error} already mirrors these runs to MLflow; wait for it, or kill that process "
                "first."
            ) from None
        yield


class _Session:
    """Passes of a tracker; logs a problem when it appears and when it is solved, not while it persists."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.problems: dict[str, str] = {}

    def mirror(self) -> bool:
        """Make one pass; return whether the server answered."""
        try:
            problems, reached = self.tracker.mirror(), True
        except Unreachable as error:
            problems, reached = {"MLflow": str(error)}, False
        for name in problems.keys() - self.problems.keys():
            _log(f"{name}: {problems[name]}")
        for name in self.problems.keys() - problems.keys():
            _log(f"{name}: mirrored again")
        self.problems = problems
        return reached

    def report_pending(self) -> None:
        """Log how many metric points MLflow lacks, if there was a problem."""
        if self.problems:
            command = shlex.join(["m2pt", "track", str(self.tracker.results)])
            _log(f"{self.tracker.pending()} metric points are pending; send them with: {command}")


class _StopRequest:
    """SIGTERM or SIGINT: ends a pause at once, but does not interrupt a pass."""

    def __init__(self) -> None:
        self._receiver, self._sender = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        os.write(self._sender, b"x")

    def arrives_within(self, seconds: float) -> bool:
        """Wait `seconds`, or until a signal arrives; return whether one has."""
        return bool(select.select([self._receiver], [], [], seconds)[0])


def _check_folder(results: Path) -> None:
    if not results.is_dir():
        raise InputError(f"{results}: no such folder; give the folder with the runs, for example results.")


def _log(text: str) -> None:
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", file=sys.stderr, flush=True)
