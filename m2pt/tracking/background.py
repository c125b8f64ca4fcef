"""Start and stop a tracker beside a workflow. Imports no MLflow, and a failure never stops the workflow."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from m2pt.run_files import LOGS

_STOP_SECONDS = 30.0

_started: dict[Path, subprocess.Popen[bytes]] = {}


def start_background(results: Path) -> None:
    """Start `m2pt track RESULTS --follow` as a separate process; its log is results/logs/track.log.

    It survives Ctrl-C in the terminal, to mirror how the runs end, and stops soon after the calling process.
    """
    command = [sys.executable, "-m", "m2pt", "track", str(results), "--follow", "--owner", str(os.getpid())]
    log = _log(results)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            _started[results.resolve()] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
    except OSError as error:
        print(f"Runs are not mirrored to MLflow: {error}", file=sys.stderr)


def stop_background(results: Path, *, seconds: float = _STOP_SECONDS) -> None:
    """Let the tracker of `start_background` send new data and stop; wait at most `seconds` for it."""
    tracker = _started.pop(results.resolve(), None)
    if tracker is None:
        return
    tracker.terminate()
    command = shlex.join(["m2pt", "track", str(results)])
    remedy = f"send the rest with: {command} (log: {_log(results)})"
    try:
        if tracker.wait(seconds) != 0:
            print(f"Mirroring to MLflow ended with exit code {tracker.returncode}; {remedy}", file=sys.stderr)
    except subprocess.TimeoutExpired:
        print(
            f"Mirroring to MLflow is still running after {seconds:.0f} s; let it finish, or {remedy}",
            file=sys.stderr,
        )


def _log(results: Path) -> Path:
    return results / LOGS / "track.log"
