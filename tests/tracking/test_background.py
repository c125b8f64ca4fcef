"""The tracker beside a workflow: started and stopped with it."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_server import wait_until
from tracked import Database, Training, expected

from m2pt.tracking.background import start_background, stop_background


def test_the_tracker_of_a_workflow(
    results: Path, database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    stop_background(results)
    start_background(results)
    log = results / "logs" / "track.log"
    wait_until(lambda: "mirroring" in log.read_text())
    Training(results).log(range(3))
    stop_background(results)
    assert database.points(database.run()) == expected(range(3))
    assert "stopped" in log.read_text()
    assert capfd.readouterr() == ("", "")


def test_the_tracker_of_a_workflow_ends_when_the_workflow_is_killed(
    results: Path, database: Database
) -> None:
    Training(results).log(range(3))
    workflow = f"from pathlib import Path; from m2pt.tracking.background import start_background as start; \
start(Path({str(results)!r}))"
    subprocess.run([sys.executable, "-c", workflow], check=True)
    log = results / "logs" / "track.log"
    wait_until(lambda: "stopped" in log.read_text())
    assert database.points(database.run()) == expected(range(3))
