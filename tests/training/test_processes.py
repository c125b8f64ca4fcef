"""Trainings that are really killed, stopped, and run by several processes; see `training_processes.py`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from m2pt.training.stopping import EXCHANGE_EVERY

SCRIPT = Path(__file__).parents[1] / "helpers/training_processes.py"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Return the folder of all trainings, the script's report about them, and their logs."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, SCRIPT, folder], env=environment, capture_output=True, text=True, timeout=900
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


@pytest.mark.parametrize("method", ["", " method"])
def test_killed_at_any_moment_it_ends_with_the_same_bits(outcome, method):
    folder, report, logs = outcome
    assert report[f"undisturbed{method}"] == 0, logs
    killed = report[f"killed{method}"]
    assert killed.pop("restart") == 0, logs
    assert {moment: result["code"] for moment, result in killed.items()} == dict.fromkeys(
        killed, -signal.SIGKILL
    )
    assert [result["step"] for result in killed.values()] == [0, 0, 0, 5, 10, 20, 25, 25, 25, 25]
    assert_same_bits(folder / f"undisturbed{method}", folder / f"killed{method}")


def test_the_state_of_a_method_is_that_of_the_undisturbed_training(outcome):
    folder, _, _ = outcome
    one, other = (
        torch.load(folder / name / "final.pt", weights_only=True)["method"]["state"]["mean"]
        for name in ("undisturbed method", "killed method")
    )
    assert one == other != 1
    plain, changed = weights(folder / "undisturbed"), weights(folder / "undisturbed method")
    assert not torch.equal(plain["head.weight"], changed["head.weight"])


def test_a_method_sees_the_same_weights_and_gradients_in_all_processes(outcome):
    folder, report, logs = outcome
    assert report["several processes"]["method by 1"] == [0], logs
    assert report["several processes"]["method by 2"] == [0, 0], logs
    first, second = ((folder / f"method by 2.digests.{rank}").read_text() for rank in (0, 1))
    assert first == second and first.count("\n") == 28
    assert_same_training(folder / "method by 1", folder / "method by 2")


def test_the_averaged_weights_are_the_same_in_all_processes(outcome):
    folder, report, logs = outcome
    assert report["several processes"]["averaged by 1"] == [0], logs
    assert report["several processes"]["averaged by 2"] == [0, 0], logs
    assert_same_training(folder / "averaged by 1", folder / "averaged by 2")
    by_one, first, second = (torch.load(folder / f"averaged by {name}.pt") for name in ("1.0", "2.0", "2.1"))
    last = weights(folder / "averaged by 1")
    assert any(not torch.allclose(value, last[name], atol=1e-3) for name, value in by_one.items())
    for name, value in by_one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=3e-4, msg=name)


@pytest.mark.parametrize("name", ["sharded", "sharded batch norm"])
def test_sharding_changes_nothing_but_rounding(outcome, name):
    folder, report, logs = outcome
    assert report["several processes"][name] == [[0, 0], [0, 0]], logs
    assert_same_training(folder / f"{name} True", folder / f"{name} False")
    assert "blocks.0.attn.qkv.pathways.other.scale" in weights(folder / f"{name} True")


@pytest.mark.parametrize("shard", [True, False])
def test_a_training_is_resumed_with_or_without_sharding(outcome, shard):
    folder, report, logs = outcome
    assert report["several processes"][f"resumed {shard}"] == [[75, 75], [0, 0]], logs
    assert_same_training(folder / f"resumed {shard}", folder / "sharded False")


def test_the_undisturbed_metrics_are_complete(outcome):
    folder, _, _ = outcome
    lines = [json.loads(line) for line in (folder / "undisturbed" / "metrics.jsonl").read_text().splitlines()]
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == [*range(3, 28, 3), 28]
    assert all(line.keys() == {"step", "epoch", "loss", "brightness", "lr"} for line in losses)
    assert [(line["step"], line["epoch"]) for line in lines if "head" in line] == [
        (7 * e, e) for e in (1, 2, 3, 4)
    ]


def test_only_the_result_is_left(outcome):
    folder, _, _ = outcome
    for name in ("undisturbed", "killed", "killed method", "stopped"):
        left = {path.name for path in (folder / name).iterdir()}
        assert left == {"final.pt", "finished.json", "metrics.jsonl", "train.log"}


def test_stopped_by_signals_it_leaves_markers_and_resumes_to_the_same_bits(outcome):
    folder, report, logs = outcome
    *stops, last = report["stopped"]
    assert [stop["code"] for stop in stops] == [75, 75, 75], logs
    assert last["code"] == 0, logs
    assert [stop["marker"]["reason"] for stop in stops] == ["SIGTERM", "SIGINT", "SIGUSR1"]
    # The step of the 7th forward pass is finished.
    assert [stop["marker"]["step"] for stop in stops] == [4, 8, 12]
    assert_same_bits(folder / "undisturbed", folder / "stopped")


def assert_same_training(folder: Path, other: Path, *, averages: bool = True) -> None:
    """Compare up to rounding; without `averages`, ignore the running averages of batch norms."""
    expected, found = weights(folder), weights(other)
    for name in expected:
        if averages or not name.startswith(("norm.running", "norm.num_batches")):
            # Batch norms of two samples amplify rounding; other masks or other batches differ by 1e-2.
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=3e-4, msg=name)
    ours, theirs = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (folder, other)
    )
    for one, same in zip(ours, theirs, strict=True):
        assert one == pytest.approx(same, rel=1e-3)


@pytest.mark.parametrize(("name", "processes"), [("4x2", 2), ("2x4", 2), ("2x4", 4)])
def test_masks_and_mixup_do_not_depend_on_the_number_of_processes(outcome, name, processes):
    """Random draws belong to a pass, whichever process does it; norms see the batch of the pass."""
    folder, report, logs = outcome
    assert report["several processes"][name] == {"1": [0], "2": [0] * 2, "4": [0] * 4}, logs
    assert_same_training(folder / f"{name} by 1", folder / f"{name} by {processes}", averages=False)


def test_processes_passes_and_batch_size_split_the_same_step(outcome):
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
    assert 3 <= stopped["marker"]["step"] == stopped["saved"] <= 3 + EXCHANGE_EVERY
    assert report["several processes"]["resumed"]["codes"] == [0, 0], logs
    assert_same_bits(folder / "4x2 by 2", folder / "one stopped")


def test_a_stopped_process_that_lost_another_resumes_from_the_last_checkpoint(outcome):
    """Two processes save every 5 steps; one is gone in step 7. A single process may finish the training."""
    folder, report, logs = outcome
    lost = report["several processes"]["lost process"]
    assert lost["codes"] == [75, 75] and lost["requeue"], logs
    assert (lost["marker"]["step"], lost["saved"], lost["marker"]["reason"]) == (5, 5, "SIGUSR1")
    assert report["several processes"]["by one"]["codes"] == [0], logs
    assert_same_training(folder / "4x2 by 1", folder / "lost process", averages=False)


def test_a_process_that_is_stopped_because_another_failed_requests_no_requeue(outcome):
    _, report, logs = outcome
    failed = report["several processes"]["one fails"]
    assert failed["codes"] == [1, 1], logs
    assert failed["reason"] == "OSError: item 7 cannot be read"
    assert failed["left"] == ["failed.json", "marker.failed", "metrics.jsonl", "resume.pt", "train.log"]
