"""Trainings mirrored to a real MLflow server that dies and comes back. Asked over REST what it holds."""

import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from mlflow_server import Server, wait_until
from torch import nn
from tracked import Training

from m2pt.datasets.seeded import SeededDataset
from m2pt.reporting.tracking import Tracker, Unreachable
from m2pt.training.loop import fit
from m2pt.training.metrics import MetricsFile
from m2pt.training.settings import TrainingSettings
from m2pt.training.signals import EXIT_CODE

# Children have torch without importing it, and begin at once.
fork = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def results(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder whose tracker writes to the server, in an experiment of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def begun(results: Path, name: str) -> Training:
    """What a training in this process leaves at its beginning."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Training(results, name, host=platform.node(), pid=os.getpid(), started=now)


def written(folder: Path) -> list[tuple[str, int, float]]:
    """Every metric point in a run's files, sorted."""
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    points = [(key, entry["step"], entry[key]) for entry in entries for key in entry if key != "step"]
    evaluation = folder / "evaluation.json"
    final = json.loads(evaluation.read_text())["metrics"] if evaluation.exists() else {}
    return sorted([*points, *((f"evaluation/{key}", 0, value) for key, value in final.items())])


def write_until(enough: Any, results: Path, name: str) -> None:
    """A training that logs until it is told to finish."""
    training, step = begun(results, name), 0
    metrics = MetricsFile(training.folder / "metrics.jsonl")
    while not enough.is_set():
        metrics.write({"step": step, "loss": 1 / (1 + step), "lr": 0.5 * step, "scale/blocks.0": 0.1 * step})
        step += 1
        time.sleep(0.04)
    metrics.close()
    training.finish(top1=50.0)


def test_eight_trainings_at_once_while_server_and_tracker_are_killed(server: Server, results: Path) -> None:
    enough, names = fork.Event(), [f"run{number}" for number in range(8)]
    trainings = [fork.Process(target=write_until, args=(enough, results, name)) for name in names]
    folders = [results / "runs" / name / "seed0" for name in names]
    experiment = os.environ["MLFLOW_EXPERIMENT_NAME"]
    command = [sys.executable, "-m", "m2pt", "track", str(results), "--follow", "--interval", "0.1"]

    def lines() -> list[int]:
        return [(folder / "metrics.jsonl").read_bytes().count(b"\n") for folder in folders]

    def mirrored() -> list[int]:
        """The last step of each run in MLflow."""
        runs = server.runs(experiment).values()
        return [max(int(each["step"]) for each in run["data"].get("metrics", [{"step": -1}])) for run in runs]

    def wait_until_all_arrived(count: int) -> None:
        """Wait until MLflow has so many lines of every run."""
        wait_until(lambda: len(found := mirrored()) == 8 and min(found) >= count - 1)

    def all_go_on() -> None:
        """Wait until every training has written more than now."""
        before = lines()
        wait_until(lambda: all(now > then + 10 for now, then in zip(lines(), before, strict=True)))
        assert all(training.is_alive() for training in trainings)

    with (results.parent / "track.log").open("w") as log:
        for training in trainings:
            training.start()
        tracker = subprocess.Popen(command, stderr=log)
        try:
            wait_until_all_arrived(5)

            server.kill()
            all_go_on()
            wait_until(lambda: "does not answer" in Path(log.name).read_text())
            assert tracker.poll() is None
            server.start()
            wait_until_all_arrived(max(lines()))

            tracker.kill()
            tracker.wait()
            all_go_on()
            tracker = subprocess.Popen(command, stderr=log)
            wait_until_all_arrived(max(lines()))

            enough.set()
            for training in trainings:
                training.join(timeout=60)
            tracker.send_signal(signal.SIGTERM)
            assert tracker.wait(timeout=60) == 0
        finally:
            enough.set()
            tracker.kill()
    runs = server.runs(experiment)
    assert sorted(runs) == [f"runs/{name}/seed0" for name in names]
    for name, folder in zip(names, folders, strict=True):
        run = runs[f"runs/{name}/seed0"]
        assert server.points(run) == written(folder), name
        assert (run["info"]["status"], run["tags"]["ended"]) == ("FINISHED", "finished")
    assert [training.exitcode for training in trainings] == [0] * 8

