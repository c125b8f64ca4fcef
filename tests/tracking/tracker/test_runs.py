"""Which run of MLflow a folder belongs to, what it says, and how it ends."""

import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tracked import SPEC, Database, Training, expected, mirror

from m2pt.tracking.cursor import mlflow_runs
from m2pt.tracking.tracker import Tracker


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
    assert tags["auxiliary"] == "audio" and tags["setting"] == "pretrained"
    assert tags["provenance.packages"] == '{"torch": "2.4"}'
    assert tags["m2pt.directory"] == "runs/tune-0a1b2c3d/seed0"
    [(status, start)] = database.rows("select status, start_time from runs where run_uuid = ?", run_id)
    assert (status, start) == ("FINISHED", 1_706_184_000_000)
    stored = results / "mlartifacts" / run_id / "artifacts"
    for name in ("run.json", "metrics.jsonl", "evaluation.json"):
        assert (stored / name).read_bytes() == (training.folder / name).read_bytes()
    [(tables,)] = database.rows("select run_uuid from runs where name = 'tables'")
    assert (results / "mlartifacts" / tables / "artifacts" / "table1.csv").read_text() == "setting,method\n"


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
    assert database.rows("select value from tags where key = 'ended'") == [("",)]
    training.log(range(5, 12))
    training.finish()
    mirror(results)
    assert database.runs() == [(run_id, "FINISHED")]
    assert database.points(run_id) == expected(range(12))
    [(device,)] = database.rows("select value from tags where key = 'provenance.device'")
    assert device == "another cpu"


def test_another_experiment_gets_everything_even_if_it_is_there(
    results: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("finished", "running"):
        Training(results, name).log(range(3))
    Training(results, "finished").finish()
    mirror(results)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    Tracker(results, None).store.connect()
    assert Tracker(results, None).pending() == 24
    mirror(results)
    mirror(results)
    query = "select run_uuid from runs join experiments using (experiment_id) where experiments.name = ?"
    for experiment in ("m2pt", "other"):
        runs = [run_id for (run_id,) in database.rows(f"{query} and runs.name != 'tables'", experiment)]
        assert [database.points(run_id) for run_id in runs] == [expected(range(3))] * 2
    folders = {"runs/finished/seed0", "runs/running/seed0"}
    links = [link for folder in folders for link in mlflow_runs(results, results / folder)]
    assert len(set(links)) == 4 and all(f"make mlflow-ui RESULTS={results})" in link for link in links)


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
    ("marker", "status", "how"),
    [
        ("finished.json", "FINISHED", "finished"),
        ("failed.json", "FAILED", "failed: DivergedError: the loss is nan at step 1"),
        ("interrupted.json", "KILLED", "interrupted: SIGUSR1"),
    ],
)
def test_status_is_what_the_markers_say(
    results: Path, database: Database, marker: str, status: str, how: str
) -> None:
    training = Training(results)
    training.log(range(2))
    training.write(marker, {"reason": reason} if (reason := how.partition(": ")[2]) else {})
    ended = (training.folder / marker).stat().st_mtime_ns // 1_000_000
    mirror(results)
    assert database.rows("select status, end_time from runs") == [(status, ended)]
    assert database.rows("select value from tags where key = 'ended'") == [(how,)]


@pytest.mark.parametrize(
    ("order", "status"),
    [
        (("finished.json", "failed.json"), "FAILED"),  # another attempt, which could not begin
        (("failed.json", "finished.json"), "FINISHED"),
        (("failed.json", "interrupted.json"), "KILLED"),
        (("interrupted.json", "failed.json"), "FAILED"),
        (("finished.json", "interrupted.json"), "FINISHED"),  # in what comes after the training
    ],
)
def test_of_two_markers_the_younger_counts_except_against_the_end(
    results: Path, database: Database, order: tuple[str, str], status: str
) -> None:
    training = Training(results)
    training.log(range(2))
    written = (training.folder / "metrics.jsonl").stat().st_mtime
    for number, marker in enumerate(order, 1):
        training.write(marker, {})
        os.utime(training.folder / marker, (written + number, written + number))
    mirror(results)
    assert database.rows("select status from runs") == [(status,)]


def test_a_training_killed_without_a_word_is_noticed_on_its_host(results: Path, database: Database) -> None:
    dead, unreaped = (subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) for _ in "ab")
    dead.communicate()
    unreaped.stdout.read()  # type: ignore[union-attr]
    os.waitid(os.P_PID, unreaped.pid, os.WEXITED | os.WNOWAIT)
    now, long_ago = datetime.now(UTC).isoformat(), "2024-01-25T12:00:00+00:00"
    for name, host, pid, started in (
        ("gone", platform.node(), dead.pid, now),
        ("unreaped", platform.node(), unreaped.pid, now),
        ("its id taken by another", platform.node(), os.getpid(), long_ago),
        ("alive", platform.node(), os.getpid(), now),
        ("elsewhere", f"not-{platform.node()}", dead.pid, now),
    ):
        Training(results, name, host=host, pid=pid, started=started).log(range(2))
    mirror(results)
    unreaped.wait()
    found = dict(database.rows("select name, status from runs"))
    assert found == {
        "gone": "KILLED",
        "unreaped": "KILLED",
        "its id taken by another": "KILLED",
        "alive": "RUNNING",
        "elsewhere": "RUNNING",
    }
    how = database.rows("select distinct value from tags where key = 'ended'")
    assert how == [("vanished: its process ended without giving a reason",)]


def test_a_run_deleted_in_mlflow_is_left_alone(results: Path, database: Database) -> None:
    training = Training(results)
    training.log(range(2))
    tracker = Tracker(results, None)
    tracker.mirror()
    tracker.store.client.delete_run(database.run())
    training.log(range(2, 4))
    mirror(results)
    assert database.points(database.run()) == expected(range(2))
