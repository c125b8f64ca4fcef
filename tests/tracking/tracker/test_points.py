"""Every metric point arrives once, however often the tracker or the training starts anew."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tracked import Database, Training, expected, mirror

from m2pt.tracking import mlflow_store
from m2pt.tracking import tracker as tracking
from m2pt.tracking.cursor import Cursor
from m2pt.tracking.mlflow_store import MlflowStore
from m2pt.tracking.tracker import Tracker


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
    monkeypatch.setattr(tracking, "_LINES_PER_REQUEST", 3)
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


def test_a_run_that_writes_as_fast_as_it_is_sent_does_not_hold_up_the_others(
    results: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, other = Training(results, "a"), Training(results, "b")
    fast.log(range(2))
    other.log(range(2))
    send, written = MlflowStore.log_points, 2

    def sent_while_it_writes(store: MlflowStore, run_id: str, *rest: Any) -> None:
        nonlocal written
        send(store, run_id, *rest)
        assert written < 20
        fast.log(range(written, written + 1))
        written += 1

    monkeypatch.setattr(MlflowStore, "log_points", sent_while_it_writes)
    mirror(results)
    assert database.points(database.run("b")) == expected(range(2))
    monkeypatch.undo()
    mirror(results)
    assert database.points(database.run("a")) == expected(range(written))
