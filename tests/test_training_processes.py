"""What really killing, stopping and multiplying processes does to a training; see `training_processes.py`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("training_processes.py")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The folder of all trainings, and what the script reports about them."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, SCRIPT, folder], env=environment, capture_output=True, text=True, timeout=300
    )
    logs = "".join(f"\n{path.name}: {path.read_text()}" for path in folder.glob("*.log"))
    assert run.returncode == 0, run.stderr + logs
    return folder, json.loads(run.stdout), logs


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "final.pt", weights_only=True)["model"]


def assert_same_bits(folder: Path, other: Path) -> None:
    expected, found = weights(folder), weights(other)
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name
    assert (folder / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


def test_killed_at_any_moment_it_ends_with_the_same_bits(outcome):
    folder, report, logs = outcome
    assert report["undisturbed"] == 0, logs
    killed = report["killed"]
    assert killed.pop("restart") == 0, logs
    assert {moment: result["code"] for moment, result in killed.items()} == dict.fromkeys(
        killed, -signal.SIGKILL
    )
    assert [result["step"] for result in killed.values()] == [0, 0, 0, 5, 10, 20, 25, 25, 25, 25]
    assert_same_bits(folder / "undisturbed", folder / "killed")


def test_the_undisturbed_metrics_are_complete(outcome):
    folder, _, _ = outcome
    lines = [json.loads(line) for line in (folder / "undisturbed" / "metrics.jsonl").read_text().splitlines()]
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == [*range(3, 28, 3), 28]
    assert all(line.keys() == {"step", "epoch", "loss", "brightness", "lr"} for line in losses)
    assert [(line["step"], line["epoch"]) for line in lines if "head" in line] == [
        (7 * e, e) for e in (1, 2, 3, 4)
    ]


def test_nothing_but_the_result_is_left(outcome):
    folder, _, _ = outcome
    for name in ("undisturbed", "killed", "stopped"):
        left = {path.name for path in (folder / name).iterdir()}
        assert left == {"final.pt", "finished.json", "metrics.jsonl", "train.log"}


def test_stopped_by_signals_it_says_so_and_goes_on_with_the_same_bits(outcome):
    folder, report, logs = outcome
    *stops, last = report["stopped"]
    assert [stop["code"] for stop in stops] == [75, 75, 75], logs
    assert last["code"] == 0, logs
    assert [stop["marker"]["reason"] for stop in stops] == ["SIGTERM", "SIGINT", "SIGUSR1"]
    assert [stop["marker"]["step"] for stop in stops] == [
        4,
        8,
        12,
    ]  # the step of the 7th forward pass is finished
    assert_same_bits(folder / "undisturbed", folder / "stopped")


def test_two_processes_train_as_one_with_twice_the_batch(outcome):
    folder, report, logs = outcome
    assert report["two processes"]["single"] == 0, logs
    assert report["two processes"]["double"] == [0, 0], logs
    expected, found = weights(folder / "single"), weights(folder / "double")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)
    single, double = (
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("single", "double")
    )
    for ours, theirs in zip(double, single, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_accumulation_exchanges_gradients_once_a_step(outcome):
    _, report, _ = outcome
    assert report["two processes"]["syncs"] == [["False", "True"] * 2] * 2


def test_a_signal_to_one_process_stops_all_at_the_same_step(outcome):
    _, report, logs = outcome
    assert report["two processes"]["one stopped"] == [75, 75], logs
    assert report["two processes"]["stopped at"] == 8
