"""No server, no database, damaged runs, values that MLflow refuses, wrong input."""

import json
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tracked import Database, Training, expected, mirror

from m2pt.errors import InputError
from m2pt.tracking.follow import mirror_once
from m2pt.tracking.tracker import Tracker, Unreachable


def test_values_beyond_mlflows_limits_are_fitted(results: Path, database: Database) -> None:
    training = Training(results, spec={"notes": "x" * 7000, "a@b": 1} | {f"key{i}": i for i in range(150)})
    line = {"step": 0, "loss@train": 0.5, "diverged": float("inf"), "word": "no number"}
    (training.folder / "metrics.jsonl").write_text(f"{json.dumps(line)}\n")
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


def test_a_server_that_is_down_loses_nothing(
    results: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    Training(results).log(range(6))
    with closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}"
        assert mirror_once(results, uri) == 1
        assert mirror_once(results, uri) == 1
    said = capsys.readouterr().err
    assert "24 metric points are pending" in said and "127.0.0.1" in said
    assert "secret" not in said
    assert not any("secret" in str(path) for path in (results / "tracking").rglob("*"))
    assert mirror_once(results, None) == 0
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
        mirror_once(results, "ftp://host")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        mirror_once(tmp_path / "nowhere", None)
