"""The tracker beside a workflow: started and stopped without a word of MLflow, and never a reason to fail."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from m2pt.errors import InputError
from m2pt.locks import Held, holding

_STOP_SECONDS = 30.0

_started: dict[Path, subprocess.Popen[bytes]] = {}


def start_background(results: Path) -> None:
    """Start `m2pt track RESULTS --follow` as a process of its own, with its log in results/logs/track.log.

    It outlives Ctrl-C in the terminal (to mirror how the runs end), but not for long the calling process.
    """
    command = [sys.executable, "-m", "m2pt", "track", str(results), "--follow", "--owner", str(os.getpid())]
    log = results / "logs" / "track.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            _started[results.resolve()] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
    except OSError as error:
        print(f"The runs are not mirrored to MLflow: {error}", file=sys.stderr)


def stop_background(results: Path, *, seconds: float = _STOP_SECONDS) -> None:
    """Let the tracker of `start_background` send what is new and end; wait `seconds` for it at most."""
    tracker = _started.pop(results.resolve(), None)
    if tracker is None:
        return
    tracker.terminate()
    command = shlex.join(["m2pt", "track", str(results)])
    again = f"send the rest with: {command} (log: {results / 'logs' / 'track.log'})"
    try:
        if tracker.wait(seconds) != 0:
            print(
                f"The mirroring to MLflow ended with exit code {tracker.returncode}; {again}", file=sys.stderr
            )
    except subprocess.TimeoutExpired:
        print(
            f"The mirroring to MLflow still goes on after {seconds:.0f} s; it ends by itself, or {again}",
            file=sys.stderr,
        )


@contextmanager
def only_tracker(results: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of the results folder; wait `patience` seconds for another tracker to end.

    Raises:
        InputError: another tracker mirrors this folder.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(holding(results / "tracking" / "lock", patience=patience))
        except Held as error:
            raise InputError(
                f"{results}: {error} already mirrors these runs to MLflow; let it, or stop it first (kill "
                "that process)."
            ) from None
        yield
