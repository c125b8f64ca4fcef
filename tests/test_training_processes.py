"""What really killing, stopping and multiplying processes does to a training; see `training_processes.py`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from m2pt.training.loop import AGREE_EVERY

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


def assert_same_training(folder: Path, other: Path, *, averages: bool = True) -> None:
    """The same to rounding; without `averages`, except for the running averages of batch norms."""
    expected, found = weights(folder), weights(other)
    for name in expected:
        if averages or not name.startswith(("norm.running", "norm.num_batches")):
            # batch norms of two samples blow rounding up; other masks or other batches differ by 1e-2
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=3e-4, msg=name)
    ours, theirs = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (folder, other)
    )
    for one, same in zip(ours, theirs, strict=True):
        assert one == pytest.approx(same, rel=1e-3)


@pytest.mark.parametrize(("name", "processes"), [("4x2", 2), ("2x4", 2), ("2x4", 4)])
def test_masks_and_mixup_do_not_depend_on_the_number_of_processes(outcome, name, processes):
    """Everything that is drawn in a pass is drawn for that pass, whoever does it; norms see its batch."""
    folder, report, logs = outcome
    assert report["several processes"][name] == {"1": [0], "2": [0] * 2, "4": [0] * 4}, logs
    assert_same_training(folder / f"{name} by 1", folder / f"{name} by {processes}", averages=False)


def test_processes_passes_and_batch_size_are_three_ways_to_the_same_step(outcome):
    folder, report, logs = outcome
    for name in ("still 8x1", "still 4x2"):
        assert report["several processes"][name] == {"1": [0], "2": [0] * 2, "4": [0] * 4}, logs
        for processes in (1, 2, 4):
            assert_same_training(folder / "still 8x1 by 1", folder / f"{name} by {processes}")


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_share_a_batch_share_its_statistics(outcome, processes):
    folder, report, logs = outcome
    assert report["several processes"]["batch norm 8x1"] == {"1": [0], "2": [0] * 2, "4": [0] * 4}, logs
    assert_same_training(folder / "batch norm 8x1 by 1", folder / f"batch norm 8x1 by {processes}")


def test_four_processes_share_two_batches_in_pairs(outcome):
    folder, report, logs = outcome
    assert report["several processes"]["batch norm 4x2"] == {"1": [0], "2": [0] * 2, "4": [0] * 4}, logs
    assert_same_training(folder / "batch norm 4x2 by 1", folder / "batch norm 4x2 by 4", averages=False)


def test_accumulation_exchanges_gradients_once_a_step(outcome):
    _, report, _ = outcome
    assert report["several processes"]["syncs"] == [["False", "True"] * 2] * 2


def test_a_signal_to_one_process_stops_all_at_the_same_step_and_the_bits_stay(outcome):
    folder, report, logs = outcome
    stopped = report["several processes"]["one stopped"]
    assert stopped["codes"] == [75, 75] and stopped["requeue"], logs
    assert stopped["marker"]["reason"] == "another process's signal"
    assert 3 <= stopped["marker"]["step"] == stopped["saved"] <= 3 + AGREE_EVERY
    assert report["several processes"]["resumed"]["codes"] == [0, 0], logs
    assert_same_bits(folder / "4x2 by 2", folder / "one stopped")


def test_who_is_told_to_stop_and_left_alone_goes_on_from_the_last_checkpoint(outcome):
    """Two processes save every 5 steps; the other is gone in step 7. One process may finish the work."""
    folder, report, logs = outcome
    left = report["several processes"]["left alone"]
    assert left["codes"] == [75, 75] and left["requeue"], logs
    assert (left["marker"]["step"], left["saved"], left["marker"]["reason"]) == (5, 5, "SIGUSR1")
    assert report["several processes"]["by one"]["codes"] == [0], logs
    assert_same_training(folder / "4x2 by 1", folder / "left alone", averages=False)


def test_who_is_told_to_stop_because_another_failed_asks_for_nothing_and_leaves_the_reason(outcome):
    _, report, logs = outcome
    failed = report["several processes"]["one fails"]
    assert failed["codes"] == [1, 1], logs
    assert failed["reason"] == "OSError: item 7 cannot be read"
    assert failed["left"] == ["failed.json", "marker.failed", "metrics.jsonl", "resume.pt", "train.log"]
