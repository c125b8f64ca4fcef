"""`m2pt track RESULTS`: mirror every run to MLflow, once or live."""

import argparse
import os
import select
import shlex
import signal
import sys
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from m2pt.errors import InputError

if TYPE_CHECKING:
    from m2pt.reporting.tracking import Tracker

# While there is no server, in intervals.
_LONGEST_PAUSE = 6
# A tracker that a new workflow starts lets that of a killed one finish.
_PATIENCE = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="default: %(default)s")
    parser.add_argument(
        "--follow", action="store_true", help="go on until SIGTERM or Ctrl-C, then a last time"
    )
    parser.add_argument(
        "--interval",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="pause of --follow; default: %(default)s",
    )
    parser.add_argument(
        "--owner", type=int, metavar="PID", help="with --follow: also end when this process has"
    )


def run(arguments: argparse.Namespace) -> int:
    """Mirror; return 0, or 1 if something could not be sent."""
    from m2pt.reporting.tracking_uri import MaskingStream

    uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    if uri is not None:  # MLflow and what it uses write warnings and errors of their own
        sys.stdout, sys.stderr = MaskingStream(sys.stdout, uri), MaskingStream(sys.stderr, uri)
    if arguments.follow:
        return follow(arguments.results, uri, interval=arguments.interval, owner=arguments.owner)
    return send_pending(arguments.results, uri)


def send_pending(results: Path, uri: str | None) -> int:
    """Send once what MLflow lacks of the runs below `results`; return 0 if it has everything now, else 1.

    `uri` is an MLflow tracking URI, None for the SQLite store in `results`.

    Raises:
        InputError: no such folder, another tracker at work there, or no such kind of URI.
    """
    from m2pt.reporting.background_tracker import only_tracker
    from m2pt.reporting.tracking import Tracker

    _expect_folder(results)
    with only_tracker(results):
        passes = _Passes(Tracker(results, uri))
        passes.mirror()
        passes.say_what_waits()
        return 1 if passes.problems else 0


def follow(results: Path, uri: str | None, *, interval: float, owner: int | None = None) -> int:
    """Mirror the runs below `results` live, until SIGTERM, SIGINT or the end of process `owner`; return 0.

    Looks for news every `interval` seconds, and ends with a last pass. Whatever the server does, it goes
    on; while there is no answer, the pauses double up to six intervals.

    Raises:
        InputError: as for `send_pending`.
    """
    from m2pt.reporting.background_tracker import only_tracker
    from m2pt.reporting.liveness import process_exists
    from m2pt.reporting.tracking import Tracker

    stop = _StopRequest()
    os.nice(10)  # the trainings beside it come first
    _expect_folder(results)
    with only_tracker(results, patience=_PATIENCE if owner else 0.0):
        passes = _Passes(Tracker(results, uri))
        _say(f"mirroring {results} to {passes.tracker.store.shown_uri}")
        pause = 0.0
        while not stop.comes_within(pause) and (owner is None or process_exists(owner)):
            pause = interval if passes.mirror() else min(2 * max(pause, interval), _LONGEST_PAUSE * interval)
        passes.mirror()
        passes.say_what_waits()
        _say("stopped")
    return 0


class _Passes:
    """Passes of a tracker, with a line for what goes wrong or right again, not for what stays as it is."""

    def __init__(self, tracker: "Tracker") -> None:
        self.tracker = tracker
        self.problems: dict[str, str] = {}

    def mirror(self) -> bool:
        """Make one pass; return whether there was a server."""
        from m2pt.reporting.tracking import Unreachable

        try:
            problems, reached = self.tracker.mirror(), True
        except Unreachable as error:
            problems, reached = {"MLflow": str(error)}, False
        for name in problems.keys() - self.problems.keys():
            _say(f"{name}: {problems[name]}")
        for name in self.problems.keys() - problems.keys():
            _say(f"{name}: mirrored again")
        self.problems = problems
        return reached

    def say_what_waits(self) -> None:
        """Say how much MLflow lacks, if anything."""
        if self.problems:
            _say(
                f"{self.tracker.waiting()} metric points wait; "
                f"send what is missing with: {shlex.join(['m2pt', 'track', str(self.tracker.results)])}"
            )


class _StopRequest:
    """SIGTERM or SIGINT, noticed without delay between passes and without breaking one off."""

    def __init__(self) -> None:
        self._received, self._sender = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        os.write(self._sender, b"x")

    def comes_within(self, seconds: float) -> bool:
        """Wait that long, or until the request has come."""
        return bool(select.select([self._received], [], [], seconds)[0])


def _expect_folder(results: Path) -> None:
    if not results.is_dir():
        raise InputError(f"{results}: no such folder; give the folder that holds the runs, such as results")


def _say(text: str) -> None:
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", file=sys.stderr, flush=True)
