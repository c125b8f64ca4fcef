"""What reaches MLflow is read from the store's database with sqlite3, not through MLflow or the tracker."""

import json
import os
import platform
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from m2pt.commands.track import send_pending
from m2pt.errors import InputError
from m2pt.reporting import mlflow_store, tracking
from m2pt.reporting.background_tracker import only_tracker, start_background, stop_background
from m2pt.reporting.mlflow_store import MlflowStore
from m2pt.reporting.tracking import Tracker, Unreachable
from m2pt.reporting.tracking_cursor import Cursor

SPEC = {
    "recipe": {"training": {"lr": 0.01, "betas": [0.9, 0.95]}},
    "target_init": "pretrained",
    "freeze": None,
}


class Training:
    """Writes what a training writes."""

    def __init__(
        self, results: Path, name: str = "tune-0a1b2c3d", *, spec: Any = SPEC, **provenance: Any
    ) -> None:
        self.folder = results / "runs" / name / "seed0"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.begin(name, spec, **provenance)

    def begin(self, name: str, spec: Any, **provenance: Any) -> None:
        given = {"git_commit": "c0ffee", "device": "cpu", "packages": {"torch": "2.4"}}
        self.write(
            "run.json",
            {
                "name": name,
                "spec": spec,
                "seed": 0,
                "provenance": {**given, "started": "2024-01-25T12:00:00+00:00", **provenance},
                "tags": {"target": "image", "auxiliary": "audio", "cells": ["tune/M2PT-Audio"]},
            },
        )

    def write(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(json.dumps(content))

    def log(self, steps: range, *, offset: float = 0.0) -> None:
        with (self.folder / "metrics.jsonl").open("a") as stream:
            for step in steps:
                entry = {"step": step, "epoch": step // 10, "loss": offset + 1 / (1 + step), "lr": 0.5 * step}
                stream.write(json.dumps(entry | {"scale/blocks.0.attn.qkv": 0.25 * step}) + "\n")

    def truncate(self, lines: int) -> None:
        path = self.folder / "metrics.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))

    def finish(self, **metrics: float) -> None:
        self.write("finished.json", {})
        if metrics:
            self.write("evaluation.json", {"metrics": metrics})


class Database:
    """The store as its database file says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            return connection.execute(query, arguments).fetchall()

    def runs(self, name: str | None = None) -> list[tuple[str, str]]:
        """(id, status) of the training runs, oldest first."""
        query = "select run_uuid, status from runs where name != 'tables' order by rowid"
        if name is None:
            return self.rows(query)
        return self.rows(query.replace("order", "and name = ? order"), name)

    def run(self, name: str | None = None) -> str:
        [(run_id, _)] = self.runs(name)
        return run_id

    def points(self, run_id: str) -> list[tuple[str, int, float]]:
        return self.rows("select key, step, value from metrics where run_uuid = ? order by key, step", run_id)


def expected(steps: range, *, offset: float = 0.0) -> list[tuple[str, int, float]]:
    """Every point of `Training.log(steps)`, once."""
    values = {
        "epoch": [float(step // 10) for step in steps],
        "loss": [offset + 1 / (1 + step) for step in steps],
        "lr": [0.5 * step for step in steps],
        "scale/blocks.0.attn.qkv": [0.25 * step for step in steps],
    }
    return [(key, step, value) for key in values for step, value in zip(steps, values[key], strict=True)]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them; making one takes MLflow seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    for name, value in mlflow_store._ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def results(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with an empty default store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def database(results: Path) -> Database:
    return Database(results / "mlflow.db")


def mirror(results: Path) -> None:
    """A pass of a tracker that has just been started."""
    assert Tracker(results, None).mirror() == {}


def test_a_finished_run_arrives_whole(results: Path, database: Database) -> None:
    training = Training(results)
    training.log(range(12))
    training.finish(top1=81.25, top5=97.5)
    (results / "table1.csv").write_text("setting,method\n")
    mirror(results)

    run_id = database.run("tune-0a1b2c3d")
    finals = [("evaluation/top1", 0, 81.25), ("evaluation/top5", 0, 97.5)]
    assert database.points(run_id) == sorted(expected(range(12)) + finals)
    assert dict(database.rows("select key, value from params where run_uuid = ?", run_id)) == {
        "seed": "0",
        "recipe.training.lr": "0.01",
        "recipe.training.betas": "[0.9, 0.95]",
        "target_init": "pretrained",
        "freeze": "null",
    }
    tags = dict(database.rows("select key, value from tags where run_uuid = ?", run_id))
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert tags["auxiliary"] == "audio" and tags["cells"] == '["tune/M2PT-Audio"]'
    assert tags["provenance.packages"] == '{"torch": "2.4"}'
    assert tags["m2pt.directory"] == "runs/tune-0a1b2c3d/seed0"
    [(status, start)] = database.rows("select status, start_time from runs where run_uuid = ?", run_id)
    assert (status, start) == ("FINISHED", 1_706_184_000_000)
    stored = results / "mlartifacts" / run_id / "artifacts"
    for name in ("run.json", "metrics.jsonl", "evaluation.json"):
        assert (stored / name).read_bytes() == (training.folder / name).read_bytes()
    [(tables,)] = database.rows("select run_uuid from runs where name = 'tables'")
    assert (results / "mlartifacts" / tables / "artifacts" / "table1.csv").read_text() == "setting,method\n"


def test_a_running_run_is_mirrored_line_by_line(results: Path, database: Database) -> None:
    training, tracker = Training(results), Tracker(results, None)
    for end in (0, 3, 7):
        training.log(range(max(0, end - 4) if end == 7 else 0, end))
        with (training.folder / "metrics.jsonl").open("a") as stream:
            half = json.dumps({"step": 99, "loss": 1.0})[:9] if end == 7 else ""
            stream.write(half)
        assert tracker.mirror() == {}
        assert database.points(database.run()) == expected(range(end))
        assert database.runs()[0][1] == "RUNNING"


def test_an_idle_pass_asks_the_store_nothing(
    results: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(results)
    training.log(range(3))
    (results / "table1.csv").write_text("setting,method\n")
    tracker = Tracker(results, None)
    tracker.mirror()
    monkeypatch.setattr(MlflowStore, "client", None)
    monkeypatch.setattr(Cursor, "save", None)
    assert tracker.mirror() == {}


class Killed(BaseException):
    """Stands for the end of the process: nothing below may catch it."""


def test_a_tracker_killed_after_any_of_its_writes_sends_every_point_once(
    results: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_LINES_AT_ONCE", 3)
    monkeypatch.setattr(mlflow_store, "_METRICS_PER_REQUEST", 8)
    from mlflow import MlflowClient

    left = 0

    def deadly(method: Callable[..., Any]) -> Callable[..., Any]:
        def perform(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            answer = method(*args, **kwargs)
            left -= 1
            if left == 0:
                raise Killed
            return answer

        return perform

    for name in ("create_run", "log_batch", "log_artifact", "set_terminated"):
        monkeypatch.setattr(MlflowClient, name, deadly(getattr(MlflowClient, name)))
    monkeypatch.setattr(Cursor, "save", deadly(Cursor.save))

    survived = False
    for moment in range(1, 100):
        training = Training(results, f"run{moment}")
        training.log(range(5))
        training.finish(top1=50.0)
        left = moment
        try:
            mirror(results)
            survived = True
        except Killed:
            left = 0
            mirror(results)
        run_id = database.run(f"run{moment}")
        assert database.points(run_id) == sorted([*expected(range(5)), ("evaluation/top1", 0, 50.0)]), moment
        assert database.runs(f"run{moment}")[0][1] == "FINISHED"
        if survived:
            break
    assert moment > 15


def test_lost_cursors_duplicate_nothing(results: Path, database: Database) -> None:
    training = Training(results)
    training.log(range(5))
    training.finish(top1=50.0)
    (results / "table1.md").write_text("| table |\n")
    mirror(results)
    shutil.rmtree(results / "tracking")
    training.log(range(5, 8))
    mirror(results)
    assert database.points(database.run()) == sorted([*expected(range(8)), ("evaluation/top1", 0, 50.0)])
    assert database.rows("select count(*) from runs") == [(2,)]


def test_a_resumed_run_continues_its_mlflow_run(results: Path, database: Database) -> None:
    training = Training(results)
    training.log(range(8))
    training.write("interrupted.json", {"step": 8})
    mirror(results)
    run_id = database.run()
    assert database.runs() == [(run_id, "KILLED")]

    (training.folder / "interrupted.json").unlink()
    training.begin("tune-0a1b2c3d", SPEC, device="another cpu")
    training.truncate(5)
    mirror(results)
    assert database.runs() == [(run_id, "RUNNING")]
    training.log(range(5, 12))
    training.finish()
    mirror(results)
    assert database.runs() == [(run_id, "FINISHED")]
    assert database.points(run_id) == expected(range(12))
    [(device,)] = database.rows("select value from tags where key = 'provenance.device'")
    assert device == "another cpu"


def test_lines_on_their_way_are_sent_after_a_resume_at_an_earlier_step(
    results: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(results)
    training.log(range(6))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowStore, "log_points", _raise_killed)
        with pytest.raises(Killed):
            mirror(results)
    training.truncate(2)
    mirror(results)
    assert database.points(database.run()) == []
    training.log(range(2, 9))
    mirror(results)
    assert database.points(database.run()) == expected(range(9))


def _raise_killed(*_: Any) -> None:
    raise Killed


def test_another_spec_in_the_same_folder_is_another_run(results: Path, database: Database) -> None:
    training = Training(results)
    training.log(range(5))
    mirror(results)
    training.begin("tune-0a1b2c3d", SPEC | {"target_init": "scratch"})
    mirror(results)
    assert (
        len(database.runs()) == 1
    )  # the former training's metrics are still there, and must not be mixed up
    (training.folder / "metrics.jsonl").unlink()
    training.log(range(3), offset=1.0)
    mirror(results)
    (old, old_status), (new, new_status) = database.runs()
    assert (old_status, new_status) == ("KILLED", "RUNNING")
    assert database.points(old) == expected(range(5))
    assert database.points(new) == expected(range(3), offset=1.0)


def test_a_training_begun_anew_with_other_values_is_another_run(results: Path, database: Database) -> None:
    training = Training(results)
    training.log(range(5))
    training.finish()
    mirror(results)
    for name in ("metrics.jsonl", "finished.json"):
        (training.folder / name).unlink()
    training.log(range(2), offset=1.0)
    mirror(results)
    shutil.rmtree(results / "tracking")
    mirror(results)
    (old, old_status), (new, new_status) = database.runs()
    assert (old_status, new_status) == ("FINISHED", "RUNNING")
    assert database.points(old) == expected(range(5))
    assert database.points(new) == expected(range(2), offset=1.0)


@pytest.mark.parametrize(
    ("marker", "status"),
    [("finished.json", "FINISHED"), ("failed.json", "FAILED"), ("interrupted.json", "KILLED")],
)
def test_status_is_what_the_markers_say(results: Path, database: Database, marker: str, status: str) -> None:
    training = Training(results)
    training.log(range(2))
    training.write(marker, {})
    ended = (training.folder / marker).stat().st_mtime_ns // 1_000_000
    mirror(results)
    assert database.rows("select status, end_time from runs") == [(status, ended)]


def test_a_training_killed_without_a_word_is_noticed_on_its_host(results: Path, database: Database) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name, host, pid in (
        ("gone", platform.node(), dead.pid),
        ("alive", platform.node(), os.getpid()),
        ("elsewhere", f"not-{platform.node()}", dead.pid),
    ):
        Training(results, name, host=host, pid=pid).log(range(2))
    mirror(results)
    found = dict(database.rows("select name, status from runs"))
    assert found == {"gone": "KILLED", "alive": "RUNNING", "elsewhere": "RUNNING"}


def test_a_new_evaluation_adds_only_what_changed(results: Path, database: Database) -> None:
    training = Training(results)
    training.finish(top1=50.0, top5=90.0)
    mirror(results)
    os.utime(training.folder / "evaluation.json", (2e9, 2e9))
    mirror(results)
    assert database.points(database.run()) == [("evaluation/top1", 0, 50.0), ("evaluation/top5", 0, 90.0)]
    training.finish(top1=60.0, top5=90.0)
    os.utime(training.folder / "evaluation.json", (2.1e9, 2.1e9))
    mirror(results)
    latest = database.rows("select key, value from latest_metrics order by key")
    assert latest == [("evaluation/top1", 60.0), ("evaluation/top5", 90.0)]
    assert len(database.points(database.run())) == 3


def test_values_beyond_mlflows_limits_are_fitted(results: Path, database: Database) -> None:
    training = Training(results, spec={"notes": "x" * 7000, "a@b": 1} | {f"key{i}": i for i in range(150)})
    training.write(
        "metrics.jsonl", {"step": 0, "loss@train": 0.5, "diverged": float("inf"), "word": "no number"}
    )
    with (training.folder / "metrics.jsonl").open("a") as stream:
        stream.write("\n")
    mirror(results)
    params = dict(database.rows("select key, value from params"))
    assert len(params) == 153 and params["a_b"] == "1"
    assert len(params["notes"]) == 6000 and params["notes"].endswith("…")
    assert database.points(database.run()) == [("diverged", 0, sys.float_info.max), ("loss_train", 0, 0.5)]


def test_one_damaged_run_does_not_hold_up_the_others(results: Path, database: Database) -> None:
    Training(results, "broken").write("run.json", "not what it should be")
    torn = Training(results, "torn")
    (torn.folder / "metrics.jsonl").write_text('{"loss": 1.0}\n')
    Training(results, "whole").log(range(3))
    problems = Tracker(results, None).mirror()
    assert sorted(problems) == ["runs/broken/seed0", "runs/torn/seed0"]
    assert "metrics.jsonl" in problems["runs/torn/seed0"] and "'step'" in problems["runs/torn/seed0"]
    assert database.points(database.run("whole")) == expected(range(3))


def test_a_run_deleted_in_mlflow_is_left_alone(results: Path, database: Database) -> None:
    training = Training(results)
    training.log(range(2))
    tracker = Tracker(results, None)
    tracker.mirror()
    tracker.store.client.delete_run(database.run())
    training.log(range(2, 4))
    mirror(results)
    assert database.points(database.run()) == expected(range(2))


def test_a_run_purged_from_the_store_is_sent_again(results: Path, database: Database) -> None:
    training = Training(results)
    training.log(range(2))
    tracker = Tracker(results, None)
    tracker.mirror()
    purged = database.run()
    with closing(sqlite3.connect(database.path)) as connection:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            connection.execute(f"delete from {table}")
        connection.commit()
    training.log(range(2, 4))
    assert "not found" in tracker.mirror()["runs/tune-0a1b2c3d/seed0"]
    assert tracker.mirror() == {}
    assert database.run() != purged
    assert database.points(database.run()) == expected(range(4))


def test_a_store_made_anew_gets_everything_again(
    results: Path, database: Database, empty_store: Path, tmp_path: Path
) -> None:
    training = Training(results)
    training.log(range(4))
    training.finish()
    mirror(results)
    moved = shutil.move(results, tmp_path / "moved")  # MLflow keeps its connection to the old place
    shutil.copy(empty_store, moved / "mlflow.db")
    mirror(moved)
    moved_database = Database(moved / "mlflow.db")
    assert moved_database.points(moved_database.run()) == expected(range(4))


def test_a_server_that_is_down_loses_nothing(
    results: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    Training(results).log(range(6))
    with closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}"
        assert send_pending(results, uri) == 1
        assert send_pending(results, uri) == 1
    said = capsys.readouterr().err
    assert "24 metric points wait" in said and "127.0.0.1" in said
    assert "secret" not in said
    assert not any("secret" in str(path) for path in (results / "tracking").rglob("*"))
    assert send_pending(results, None) == 0
    assert database.points(database.run()) == expected(range(6))
    assert capsys.readouterr().err == ""


def test_a_hanging_server_is_given_up_soon(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    Training(results)
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as silent,
        pytest.raises(Unreachable, match="does not answer"),
    ):
        Tracker(results, f"http://127.0.0.1:{silent.getsockname()[1]}").mirror()


def test_a_database_that_cannot_be_opened_counts_as_down(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)
    Training(results)
    with pytest.raises(Unreachable, match="does not answer"):
        Tracker(results, f"sqlite:///{tmp_path}").mirror()  # a folder


def test_wrong_input_is_named(results: Path, tmp_path: Path) -> None:
    Training(results)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI: ftp://host"):
        send_pending(results, "ftp://host")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        send_pending(tmp_path / "nowhere", None)


def test_a_second_tracker_is_refused(results: Path) -> None:
    with only_tracker(results), pytest.raises(InputError, match=f"process {os.getpid()} already mirrors"):
        send_pending(results, None)
    assert send_pending(results, None) == 0


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
        _, said = tracker.communicate(timeout=300)
    assert tracker.returncode == 0, said
    assert database.points(database.run()) == sorted(
        [*expected(range(written + 50)), ("evaluation/top1", 0, 50.0)]
    )
    assert database.runs()[0][1] == "FINISHED"


def test_the_tracker_of_a_workflow(
    results: Path, database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    stop_background(results)
    start_background(results)
    log = results / "logs" / "track.log"
    while "mirroring" not in log.read_text():
        time.sleep(0.05)
    Training(results).log(range(3))
    stop_background(results)
    assert database.points(database.run()) == expected(range(3))
    assert "stopped" in log.read_text()
    assert capfd.readouterr() == ("", "")


def test_the_tracker_of_a_workflow_ends_when_the_workflow_is_killed(
    results: Path, database: Database
) -> None:
    Training(results).log(range(3))
    workflow = (
        f"from pathlib import Path; from m2pt.reporting.background_tracker import start_background as start; \
start(Path({str(results)!r}))"
    )
    subprocess.run([sys.executable, "-c", workflow], check=True)
    log = results / "logs" / "track.log"
    deadline = time.monotonic() + 300
    while "stopped" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert database.points(database.run()) == expected(range(3))
