"""What surrounds a training: its identity, being stopped outside of it, what it leaves, merged or not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from m2pt import build, evaluation, session
from m2pt.errors import InputError, RunError
from m2pt.models.exchange import fold_head
from m2pt.pathway import attach
from m2pt.plan.jobs import Jobs, Training
from m2pt.plan.plan import Plan
from m2pt.tasks.target import largest_difference
from m2pt.training.signals import EXIT_CODE

TINY = Path("tests/tiny/config.yaml")


@pytest.fixture
def identity(tmp_path):
    """Return a function that describes the same run again, after what it depends on has been written."""
    plan = Plan.load(TINY, {"results": str(tmp_path)})
    manifest, weights = plan.manifest("imagenet"), tmp_path / "start.safetensors"
    manifest.parent.mkdir()

    def describe(*, start=0.0, content="a" * 64, stored=None, seed=0):
        manifest.write_text(json.dumps({"listing_sha256": "b" * 64, "content_sha256": content}))
        save_file({"w": torch.tensor([start])}, weights)
        training = Training(
            kind="pretrain",
            name="run",
            seed=seed,
            spec=plan.encoder("image"),
            stored=stored or plan.encoder("image").stored,
            directory=tmp_path / "run",
            files=(),
            weights={"target_init": weights},
        )
        return session.describe_run(plan, training)[0]

    return describe


def test_the_identity_depends_on_input_weights_data_spec_and_seed(identity):
    first = identity()
    assert identity() == first
    changed = [
        identity(start=1.0),
        identity(content="c" * 64),
        identity(seed=1),
        identity(stored={"task": "other"}),
    ]
    assert len({first, *changed}) == 5


STOPPED = """
import os, signal, sys, time
from pathlib import Path
from m2pt.training.signals import exit_on_stop_signal
with exit_on_stop_signal(Path(sys.argv[1])):
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_outside_the_training_loop_leaves_markers_and_the_exit_code(tmp_path, number):
    environment = os.environ | {"REQUEUE_MARKER": str(tmp_path / "requeue" / "marker")}
    command = [sys.executable, "-c", STOPPED, str(tmp_path), str(int(number))]
    run = subprocess.run(command, env=environment, timeout=300)
    assert run.returncode == EXIT_CODE
    assert json.loads((tmp_path / "interrupted.json").read_text())["reason"] == number.name
    assert (tmp_path / "requeue" / "marker").exists()


def test_of_several_processes_the_main_one_says_what_happened_and_any_asks_to_go_on(tmp_path):
    environment = os.environ | {"REQUEUE_MARKER": str(tmp_path / "marker"), "RANK": "1"}
    command = [sys.executable, "-c", STOPPED, str(tmp_path), str(int(signal.SIGUSR1))]
    assert subprocess.run(command, env=environment, timeout=300).returncode == EXIT_CODE
    assert [path.name for path in tmp_path.iterdir()] == ["marker"]


def test_a_result_needs_the_files_of_its_training(tmp_path):
    (tmp_path / "run.json").write_text(
        json.dumps({"spec": {}, "seed": 0, "provenance": {"device": "cpu"}, "inputs": {}})
    )
    with pytest.raises(InputError, match=r"finished\.json: missing"):
        session.training_record(tmp_path)
    (tmp_path / "finished.json").write_text(json.dumps({"seconds": 3.5, "step": 1}))
    assert session.training_record(tmp_path) == {
        "provenance": {"device": "cpu"},
        "inputs": {},
        "seconds": 3.5,
    }


class Linear:
    """A task whose prediction is the model's output."""

    def predict(self, model, batch):
        return model(batch)


def test_a_merger_that_changes_the_function_is_refused():
    one, other = nn.Linear(4, 2), nn.Linear(4, 2)
    other.load_state_dict(one.state_dict())
    batch = torch.randn(3, 4)
    evaluation.check_difference(largest_difference(Linear(), one, other, [batch], torch.device("cpu")), "run")
    with torch.no_grad():
        other.weight[0, 0] += 0.01
    difference = largest_difference(Linear(), one, other, [batch], torch.device("cpu"))
    assert difference == pytest.approx(
        (0.01 * batch[:, 0]).abs().max().item() / one(batch).abs().max().item(), rel=1e-3
    )
    with pytest.raises(RunError, match="run: merging changed the predictions"):
        evaluation.check_difference(difference, "run")
    with pytest.raises(RunError):
        evaluation.check_difference(float("nan"), "run")


def test_a_folded_head_is_the_same_function():
    torch.manual_seed(0)
    head = nn.Sequential(nn.BatchNorm1d(8, affine=False, eps=1e-6), nn.Linear(8, 3))
    for _ in range(5):
        head(torch.randn(16, 8) * 3 + 1)
    head.eval()
    state = {f"head.{name}": value for name, value in head.state_dict().items()} | {
        "norm.weight": torch.ones(8)
    }
    folded = fold_head(state)
    assert set(folded) == {"head.weight", "head.bias", "norm.weight"}
    features = torch.randn(20, 8)
    plain = nn.functional.linear(features, folded["head.weight"], folded["head.bias"])
    assert torch.allclose(plain, head(features), atol=1e-6)
    assert fold_head(folded) == folded


@pytest.mark.parametrize(
    ("depth", "third", "blocks"),
    [
        (12, "first_third", range(4)),
        (12, "middle_third", range(4, 8)),
        (12, "last_third", range(8, 12)),
        (4, "middle_third", range(1, 3)),
        (6, "all", range(6)),
    ],
)
def test_pathways_can_be_kept_to_a_third_of_the_depth(depth, third, blocks):
    from m2pt.config.experiment import PathwaySpec

    assert build.chosen_blocks(PathwaySpec(auxiliaries=("audio",), depth=third), depth) == blocks


def test_only_the_main_process_writes(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert not session.is_main_process()
    monkeypatch.delenv("RANK")
    assert session.is_main_process() and os.environ.get("RANK") is None


HELD_BACK = """
import os, signal
from m2pt.training.signals import block_stop_signals, exit_on_stop_signal
block_stop_signals()
os.kill(os.getpid(), signal.SIGUSR1)
print("still here", flush=True)
with exit_on_stop_signal():
    print("never")
"""


def test_a_signal_before_the_handlers_stand_is_acted_on_once_they_do(tmp_path):
    environment = os.environ | {"REQUEUE_MARKER": str(tmp_path / "marker")}
    run = subprocess.run(
        [sys.executable, "-c", HELD_BACK], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert (run.returncode, run.stdout) == (EXIT_CODE, "still here\n")
    assert [path.name for path in tmp_path.iterdir()] == ["marker"]


def test_a_log_begins_with_what_the_training_is():
    plan = Plan.load(TINY)
    run = next(run for run in plan.runs.values() if run.experiment.auxiliaries == ("pointcloud",))
    training = Jobs(plan).training(run, 3)
    target, auxiliary = nn.Sequential(nn.Linear(3, 3, bias=False)), nn.Sequential(nn.Linear(3, 3, bias=False))
    attach([target], [auxiliary], layers=["0"])
    setup = session.Setup(target, loss=None, dataset=range(1234))
    first, *lines = session.header(training, setup, "cpu").splitlines()
    assert first == f"finetune {run.name}, seed 3"
    said = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert said["dataset"] == "imagenet: 1,234 training items, 10 classes"
    assert said["parameters"] == "19: 19 trainable, 10 in pathways"
    assert said["device"] == "cpu"
    assert said["auxiliary.pointcloud"] == str(plan.encoder_weights("pointcloud", 3))
    assert said["results"] == str(plan.run_directory(run.name, 3))
    batch = training.settings.batch_size * training.settings.accumulation
    assert said["batch"].startswith(f"{batch} = batch_size {training.settings.batch_size} x accumulation")


def test_a_log_ends_with_the_last_loss(tmp_path):
    lines = [
        {"step": 10, "epoch": 1, "loss": 2.0},
        {"step": 20, "epoch": 2, "loss": 0.5},
        {"step": 20, "x": 1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert session.last_loss(tmp_path) == "loss 0.5000 after 20 steps"


def test_a_metric_that_no_table_can_show_is_refused():
    evaluation.check_metrics("classification", {"top1": 50.0})
    with pytest.raises(RunError, match=r"task classification returned top3; .* are top1, top5"):
        evaluation.check_metrics("classification", {"top1": 50.0, "top3": 60.0})
