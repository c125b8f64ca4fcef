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
from mlflow_server import SECONDS, Server, wait_until
from torch import nn
from tracked import Training

from m2pt.datasets.base import SeededDataset
from m2pt.tracking.tracker import Tracker, Unreachable
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
                training.join(timeout=300)
            tracker.send_signal(signal.SIGTERM)
            assert tracker.wait(timeout=300) == 0
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


class Points(SeededDataset):
    """Twenty points of three classes."""

    def __len__(self) -> int:
        return 20

    def load(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.randn(5), index % 3


def train(results: Path, name: str, after: int, then: Callable[[], Any]) -> None:
    """A real training of 30 steps that keeps a checkpoint every 5; what happens `then` happens once."""
    calls = 0

    def loss(model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        nonlocal calls
        calls += 1
        value = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return value * (then() or 1.0) if calls == after else value, {}

    training = begun(results, name)
    settings = TrainingSettings(epochs=6, batch_size=4, lr=0.01, log_every=1, checkpoint_every=5)
    torch.manual_seed(1)
    model = nn.Linear(5, 3)
    fit(model, loss, Points(3), settings=settings, directory=training.folder, identity="feed", seed=3)


def test_a_killed_and_a_preempted_training_continue_the_same_mlflow_run(
    server: Server, results: Path
) -> None:
    """The metrics after the last checkpoint are cut off and written again; MLflow has each of them once."""
    reached, go_on = fork.Event(), fork.Event()

    def run(after: int, then: Callable[[], Any], name: str = "run") -> Any:
        training = fork.Process(target=train, args=(results, name, after, then))
        training.start()
        return training

    def stored(name: str = "run") -> tuple[str, str, str]:
        """Id, status and how it ended of the run in MLflow, after a pass of a new tracker."""
        assert Tracker(results, server.uri).mirror() == {}
        run = server.runs(os.environ["MLFLOW_EXPERIMENT_NAME"])[f"runs/{name}/seed0"]
        return run["info"]["run_id"], run["info"]["status"], run["tags"].get("ended", "")

    killed = run(13, lambda: os.kill(os.getpid(), signal.SIGKILL))
    killed.join(timeout=SECONDS)
    metrics = results / "runs" / "run" / "seed0" / "metrics.jsonl"
    assert metrics.read_bytes().count(b"\n") == 12
    run_id, *how = stored()
    assert how == ["KILLED", "vanished: its process ended without giving a reason"]

    preempted = run(7, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    preempted.join(timeout=SECONDS)
    assert preempted.exitcode == EXIT_CODE
    assert metrics.read_bytes().count(b"\n") == 17
    assert stored() == (run_id, "KILLED", "interrupted: SIGUSR1")

    def pause() -> None:
        reached.set()
        go_on.wait(timeout=SECONDS)

    resumed = run(3, pause)
    assert reached.wait(timeout=SECONDS)
    assert stored() == (run_id, "RUNNING", "")
    go_on.set()
    resumed.join(timeout=SECONDS)
    assert stored() == (run_id, "FINISHED", "finished")
    points = server.points(server.runs(os.environ["MLFLOW_EXPERIMENT_NAME"])["runs/run/seed0"])
    assert points == written(metrics.parent)
    assert [step for key, step, _ in points if key == "loss"] == list(range(1, 31))

    run(4, lambda: float("nan"), "diverged").join(timeout=SECONDS)
    _, status, reason = stored("diverged")
    assert (status, reason.partition(" at step")[0]) == ("FAILED", "failed: DivergedError: the loss is nan")


class LossyProxy(ThreadingHTTPServer):
    """Passes every request on to the server, and loses the answer to each the first time."""

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port, self.requests = server.port, set[tuple[str, str, bytes]]()

    def __enter__(self) -> "LossyProxy":
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: LossyProxy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        onward = HTTPConnection("127.0.0.1", self.server.port, timeout=300)
        onward.request(self.command, self.path, body, dict(self.headers))
        answer = onward.getresponse()
        content = answer.read()
        onward.close()
        self.close_connection = True
        request = self.command, self.path, body
        if request not in self.server.requests:
            self.server.requests.add(request)
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_PATCH = do_POST

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_a_lost_answer_to_any_request_duplicates_nothing(server: Server, results: Path) -> None:
    training = begun(results, "run")
    training.log(range(6))
    training.finish(top1=50.0)
    (results / "table1.csv").write_text("setting,method\n")
    (results / "figure3.png").write_bytes(b"png")
    (results / "config.yaml").write_text("seeds: [0]\n")
    lost = 0
    with LossyProxy(server) as proxy:
        uri = f"http://127.0.0.1:{proxy.server_address[1]}"
        while True:
            try:
                assert Tracker(results, uri).mirror() == {}
                break
            except Unreachable:
                lost += 1
    assert lost > 15
    experiment = os.environ["MLFLOW_EXPERIMENT_NAME"]
    [run] = server.runs(experiment).values()
    assert server.points(run) == written(training.folder)
    assert run["info"]["status"] == "FINISHED"
    names = [each["path"] for each in server.ask("artifacts/list", run_id=run["info"]["run_id"])["files"]]
    assert names == ["evaluation.json", "metrics.jsonl", "run.json"]
    [tables] = server.tables(experiment)
    names = [each["path"] for each in server.ask("artifacts/list", run_id=tables)["files"]]
    assert names == ["config.yaml", "figure3.png", "table1.csv"]
