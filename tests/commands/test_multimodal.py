"""`m2pt multimodal`: every method from data to evaluation, stopped and resumed, and from config to table."""

import json
import math
import os
import signal
import subprocess
import sys

import mlflow
import pytest
import yaml
from multimodal_config import METHODS, write_config

from m2pt.commands import main
from m2pt.datasets import avmnist
from m2pt.formats.weights import load_weights
from m2pt.plan.plan import Plan
from m2pt.run_files import ENCODER, EVALUATION, METRICS, MLFLOW_DATABASE, MODEL
from m2pt.selection import SelectedOnValidation
from m2pt.training.signals import Interrupted

INPUT = {"image_size": 28, "audio_size": 16, "held_out": 0.25}
"""Ten of forty samples for validation, and twenty for testing."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train every method, and one modality alone; return the plan."""
    rows = {name: {"method": name} for name in METHODS} | {
        "image alone": {"method": "joint", "modalities": ["image"]}
    }
    config = write_config(tmp_path_factory.mktemp("multimodal"), rows)
    assert main(["check", "--config", str(config)]) == 0
    assert main(["data", "build", "avmnist", "--config", str(config)]) == 0
    plan = Plan.load(config)
    for name in plan.runs:
        assert main(["multimodal", name, "--seed", "0", "--config", str(config)]) == 0
    return plan


def folder_of(plan, method, modalities=None):
    (found,) = (
        run
        for run in plan.runs.values()
        if (run.experiment.balancing.method, run.experiment.balancing.modalities) == (method, modalities)
    )
    return plan.run_directory(found.name, 0)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_trained_and_evaluated(trained, method):
    folder = folder_of(trained, method)
    result = json.loads((folder / EVALUATION).read_text())
    assert result["metrics"].keys() == {"top1", "top1_audio", "top1_image", "val_top1"}
    assert list(result["spec"]["recipe"]["methods"]) == [method]
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines if "val_top1_image" in line] == [1, 2]
    best = max((line["val_top1"], -line["epoch"]) for line in lines if "val_top1" in line)
    assert (result["metrics"]["val_top1"], -result["selected_epoch"]) == pytest.approx(best)
    state, _ = load_weights(folder / MODEL)
    assert all(name.split(".")[0] in ("encoders", "fusion") for name in state)


def test_one_modality_alone_has_its_encoder_only(trained):
    folder = folder_of(trained, "joint", ("image",))
    state, _ = load_weights(folder / MODEL)
    assert not [name for name in state if "audio" in name]
    assert json.loads((folder / EVALUATION).read_text())["metrics"].keys() == {"top1", "val_top1"}


def test_methods_begin_with_the_same_weights(trained):
    first = {
        method: json.loads((folder_of(trained, method) / METRICS).read_text().splitlines()[0])["loss"]
        for method in ("joint", "agm", "ogm", "mslr", "mses")
    }
    assert len({round(loss, 5) for loss in first.values()}) == 1


def test_coefficients_are_logged(trained):
    line = json.loads((folder_of(trained, "agm") / METRICS).read_text().splitlines()[0])
    assert {"coefficient/audio", "coefficient/image", "score/audio", "score/image", "clipped"} <= line.keys()


def test_tables_and_plans_have_these_runs(trained, capsys):
    assert main(["tabulate", "table", "--config", trained.source]) == 0
    table = (trained.results / "table.csv").read_text()
    assert table.count("\n") > 2 * len(METHODS)
    assert main(["show", "table:agm:image", "--config", trained.source]) == 0
    assert "m2pt multimodal avmnist-late-agm-" in capsys.readouterr().out
    assert main(["plan", "--counted", "--config", trained.source]) == 0
    assert "jointly trained, model" in capsys.readouterr().out


def test_a_fault_of_any_split_is_named_before_the_training_after_one_check(
    trained, tmp_path, monkeypatch, capsys
):
    config = write_config(tmp_path / "faulty", {"joint": {"method": "joint"}})
    plan = Plan.load(config)
    (name,) = plan.runs
    assert main(["data", "build", "avmnist", "--config", str(config)]) == 0
    checks = []
    check = avmnist.check
    monkeypatch.setattr(
        avmnist, "check", lambda *given, **more: checks.append(given) or check(*given, **more)
    )
    labels = plan.root("avmnist") / "test_labels.npy"
    labels.write_bytes(b"no array")
    assert main(["multimodal", name, "--seed", "0", "--config", str(config)]) == 2
    assert labels.name in capsys.readouterr().err and len(checks) == 1
    assert not (plan.run_directory(name, 0) / METRICS).exists()


@pytest.mark.parametrize("method", ["agm", "mses", "gradient_blending", "ogm_ge"])
def test_a_stopped_training_resumes_to_the_same_bits(trained, tmp_path, monkeypatch, method):
    config = write_config(tmp_path / "stopped", {method: {"method": method}})
    (name,) = Plan.load(config).runs
    assert main(["data", "build", "avmnist", "--config", str(config)]) == 0
    after_epoch = SelectedOnValidation.after_epoch

    def stop(self, model, epoch):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return after_epoch(self, model, epoch)

    monkeypatch.setattr(SelectedOnValidation, "after_epoch", stop)
    words = ["multimodal", name, "--seed", "0", "--config", str(config)]
    with pytest.raises(Interrupted):
        main(words)
    monkeypatch.setattr(SelectedOnValidation, "after_epoch", after_epoch)
    assert main(words) == 0
    resumed, whole = Plan.load(config).run_directory(name, 0), folder_of(trained, method)
    assert (resumed / MODEL).read_bytes() == (whole / MODEL).read_bytes()
    assert (resumed / METRICS).read_text() == (whole / METRICS).read_text()


def test_the_test_split_is_read_once_and_at_the_end(trained, tmp_path, monkeypatch):
    config = write_config(tmp_path / "order", {"joint": {"method": "joint"}}, input=INPUT)
    (name,) = Plan.load(config).runs
    assert main(["data", "build", "avmnist", "--config", str(config)]) == 0
    order = []
    begin, load = avmnist.Reader.__init__, avmnist.Reader.load

    def remember(self, root, split, **options):
        self.name_of_split = split
        begin(self, root, split, **options)

    def record(self, index):
        order.append((self.name_of_split, index))
        return load(self, index)

    monkeypatch.setattr(avmnist.Reader, "__init__", remember)
    monkeypatch.setattr(avmnist.Reader, "load", record)
    assert main(["multimodal", name, "--seed", "0", "--config", str(config)]) == 0
    assert "test" not in {split for split, _ in order[:-20]}
    assert sorted(order[-20:]) == [("test", index) for index in range(20)]
    assert sum(split == "val" for split, _ in order) == 2 * 10  # two epochs


def test_a_killed_training_resumes_to_the_same_bits(trained, tmp_path):
    training = {"epochs": 2, "batch_size": 8, "optimizer": "sgd", "lr": 0.05, "log_every": 1}
    config = write_config(
        tmp_path / "killed", {"agm": {"method": "agm"}}, training=training | {"checkpoint_every": 1}
    )
    (name,) = Plan.load(config).runs
    assert main(["data", "build", "avmnist", "--config", str(config)]) == 0
    program = (
        "import os, signal, sys\n"
        "from m2pt.commands import main\n"
        "from m2pt.selection import SelectedOnValidation\n"
        "before_step, steps = SelectedOnValidation.before_step, []\n"
        "def kill(self, model, step):\n"
        "    steps.append(step)\n"
        "    if len(steps) == 4:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return before_step(self, model, step)\n"
        "SelectedOnValidation.before_step = kill\n"
        "main(sys.argv[1:])\n"
    )
    words = ["multimodal", name, "--seed", "0", "--config", str(config)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert main(words) == 0
    resumed, whole = Plan.load(config).run_directory(name, 0), folder_of(trained, "agm")
    assert (resumed / MODEL).read_bytes() == (whole / MODEL).read_bytes()
    assert (resumed / METRICS).read_text() == (whole / METRICS).read_text()


def test_models_are_exported_and_tracked(trained, tmp_path):
    options = ["--config", trained.source, "--set", f"checkpoints={tmp_path / 'checkpoints'}"]
    assert main(["export", "models", *options]) == 0
    name = folder_of(trained, "agm").parent.name
    exported = tmp_path / "checkpoints/models" / name / "seed0"
    assert {MODEL, EVALUATION} <= {each.name for each in exported.iterdir()}
    assert (exported / MODEL).read_bytes() == (folder_of(trained, "agm") / MODEL).read_bytes()
    assert main(["track", str(trained.results)]) == 0
    client = mlflow.MlflowClient(f"sqlite:///{trained.results / MLFLOW_DATABASE}")
    (run,) = client.search_runs(
        [each.experiment_id for each in client.search_experiments()], f"attributes.run_name LIKE '%{name}%'"
    )
    assert {"evaluation/top1", "coefficient/audio", "val_top1_image"} <= run.data.metrics.keys()


def test_a_pretrained_encoder_of_the_config_is_where_a_transformer_starts(tmp_path):
    encoders = {"audio": {"kind": "resnet18", "width": 4}, "image": {"kind": "transformer"}}
    rows = {"x": {"method": "agm", "encoders": {"image": "start"}}, "scratch": {"method": "agm"}}
    config = write_config(
        tmp_path / "config", rows, model={"encoders": encoders, "fusion": {"kind": "concat"}}
    )
    values = yaml.safe_load(config.read_text())
    values["encoders"] = {"start": {"modality": "image", "random": True}}
    config.write_text(yaml.safe_dump(values))
    options = ["--config", str(config)]
    assert main(["check", *options]) == 0
    assert main(["data", "build", "avmnist", *options]) == 0
    assert main(["import", "start", *options]) == 0
    plan = Plan.load(config)
    started = next(name for name, run in plan.runs.items() if run.experiment.balancing.encoders)
    first = {}
    for name in plan.runs:
        assert main(["multimodal", name, "--seed", "0", *options]) == 0
        first[name] = json.loads((plan.run_directory(name, 0) / METRICS).read_text().splitlines()[0])["loss"]
    weights, _ = load_weights(plan.encoder_directory("start", 0) / ENCODER)
    trained, _ = load_weights(plan.run_directory(started, 0) / MODEL)
    key = "blocks.0.mlp.fc1.weight"
    moved = (trained[f"encoders.image.{key}"] - weights[key]).norm() / weights[key].norm()
    assert 0 < moved < 0.2  # two epochs from where it started
    assert len(set(first.values())) == 2


def log_of(plan):
    """Return the lines of metrics.jsonl of each step of a config's only run."""
    (name,) = plan.runs
    lines = (plan.run_directory(name, 0) / METRICS).read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_processes_train_as_one(tmp_path, accumulation):
    training = {"epochs": 1, "batch_size": 8, "accumulation": accumulation, "optimizer": "sgd", "lr": 0.005}
    config = write_config(
        tmp_path / "config", {"agm": {"method": "agm"}}, training=training | {"log_every": 1}
    )
    options = ["--config", str(config), "--set", f"results={tmp_path / 'two'}"]
    (name,) = Plan.load(config).runs
    words = ["multimodal", name, "--seed", "0"]
    assert main(["data", "build", "avmnist", "--config", str(config)]) == 0
    assert main([*words, "--config", str(config)]) == 0
    assert main(["data", "build", "avmnist", *options]) == 0
    launch = [sys.executable, "-m", "m2pt", "launch", "--processes", "2", *words, *options]
    done = subprocess.run(launch, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = log_of(Plan.load(config)), log_of(Plan.load(config, {"results": str(tmp_path / "two")}))
    assert len(one) == len(two) == 2 // accumulation
    for single, shared in zip(one, two, strict=True):
        assert shared["loss"] == pytest.approx(single["loss"], rel=1e-4)
        if accumulation == 1:  # both have half of each batch: the scores are those of the whole
            assert shared == pytest.approx(single, rel=1e-4)
    # each has whole batches of its own: the scores, and with that the coefficients, are of both together
    ahead = math.exp(two[0]["score/image"] - two[0]["score/audio"])
    assert two[0]["coefficient/audio"] == pytest.approx(math.exp(1.5 * (1 - ahead)), rel=1e-5)
