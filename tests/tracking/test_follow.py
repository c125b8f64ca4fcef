"""The tracker as a process: started twice, killed, started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tracked import Database, Training, expected

from m2pt.errors import InputError
from m2pt.tracking.follow import mirror_once, tracker_lock


def test_a_second_tracker_is_refused(results: Path) -> None:
    with tracker_lock(results), pytest.raises(InputError, match=f"process {os.getpid()} on .* already"):
        mirror_once(results, None)
    assert mirror_once(results, None) == 0


def test_a_live_tracker_killed_and_started_again(results: Path, database: Database) -> None:
    training = Training(results)
    command = [sys.executable, "-m", "m2pt", "track", str(results), "--follow", "--interval", "0.01"]
    written = 0

    def write_until_mirrored(count: int) -> None:
        """Go on training until the store has `count` points."""
        nonlocal written
        deadline = time.monotonic() + 300
        while database.rows("select count(*) from metrics") < [(count,)]:
            training.log(range(written, written + 1))
            written += 1
            assert time.monotonic() < deadline and tracker.poll() is None
            time.sleep(0.01)

    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracker:
        write_until_mirrored(200)
        tracker.kill()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracker:
        write_until_mirrored(4 * written)
        training.log(range(written, written + 50))
        training.finish(top1=50.0)
        tracker.send_signal(signal.SIGTERM)
        _, said = tracker.communicate(timeout=900)
    assert tracker.returncode == 0, said
    assert database.points(database.run()) == sorted(
        [*expected(range(written + 50)), ("evaluation/top1", 0, 50.0)]
    )
    assert database.runs()[0][1] == "FINISHED"
