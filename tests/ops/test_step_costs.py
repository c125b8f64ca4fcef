"""The seconds of a step: counted, measured or of finished trainings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_trainings import TINY, find

from m2pt.commands import main
from m2pt.ops import step_costs
from m2pt.ops.measure import Stepper, step_seconds
from m2pt.ops.step_costs import FlopEstimator, StepCost, cost_key
from m2pt.plan.jobs import trainings
from m2pt.plan.plan import Plan
from m2pt.training.settings import TrainingSettings


def test_counted_seconds_are_operations_over_throughput(tiny):
    training = find(tiny, "pretrain image")

    def trained_with(**changes):
        recipe = training.spec.recipe
        recipe = recipe.model_copy(update={"training": replace(recipe.training, **changes)})
        spec = replace(training.spec, recipe=recipe)
        return replace(training, spec=spec, stored=spec.stored)

    training = trained_with(accumulation=4)
    half, full = FlopEstimator(50.0, 5.0), FlopEstimator(100.0, 10.0)
    assert full.cost(training, lambda: 25 * 10**12) == StepCost(1.0, "100 TFLOP/s", "counted")
    assert half.cost(training, lambda: 25 * 10**12).seconds == 2.0
    estimated = FlopEstimator(50.0, 5.0).cost(
        trained_with(accumulation=4, precision="no"), lambda: 25 * 10**12
    )
    assert estimated == StepCost(20.0, "5 TFLOP/s", "counted")


def test_the_same_work_has_one_cost(tiny):
    def key(beginning, **changes):
        spec = json.loads(json.dumps(find(tiny, beginning).stored))
        spec["recipe"]["training"] |= changes
        return cost_key(spec)

    plain, attached = "finetune imagenet-tune-from-image-07", "finetune imagenet-tune-from-image-pointcloud"
    assert key(plain) == key(plain, epochs=7, lr=3.0, log_every=9)
    assert key(attached) == key("finetune imagenet-tune-from-scratch-random")
    different = [key(plain), key(attached), key(plain, batch_size=8), key(plain, optimizer="lars")]
    assert len({*different, key(plain, ema=0.9)}) == 5 and key(plain, ema=0.9) == key(plain, ema=0.99)


def test_the_strength_of_a_balancing_method_costs_nothing_and_its_other_settings_may():
    def key(**settings):
        (run,) = (each for name, each in plan.runs.items() if name.startswith("avmnist-early-agm"))
        spec = json.loads(json.dumps(run.spec.stored))
        spec["recipe"]["methods"]["agm"] |= settings
        return cost_key(spec)

    plan = Plan.load(Path("config/config.yaml"))
    assert key(alpha=0.5) == key(alpha=2.5) != key(window=[0, 5])


def finished(plan, training, *, seconds, step, device):
    training.directory.mkdir(parents=True)
    described = {"spec": training.stored, "seed": 0, "provenance": {"device": device}}
    (training.directory / "run.json").write_text(json.dumps(described))
    (training.directory / "finished.json").write_text(json.dumps({"seconds": seconds, "step": step}))


def test_hours_are_steps_times_the_seconds_of_finished_trainings(tmp_path, document):
    results = tmp_path / "results"
    plan = Plan.load(TINY, {"results": str(results)})
    every = {each.id: each for each in trainings(plan, plan.runs.values())}
    image = find(every, "pretrain image")
    finished(plan, image, seconds=90.0, step=45, device="NVIDIA X")
    random = find(every, "finetune imagenet-tune-from-scratch-random")
    finished(plan, random, seconds=10.0, step=40, device="cpu")

    made = {each["id"]: each for each in document("curves")["trainings"]}
    pretraining = made["pretrain image seed0"]
    assert pretraining["seconds_per_step"] == 2.0 and pretraining["device"] == "NVIDIA X"
    assert pretraining["gpu_hours"] == pytest.approx(pretraining["steps"] * 2.0 / 3600)
    assert pretraining["step_cost_from"] == "results" and pretraining["done"]
    same_work = next(each for id, each in made.items() if "tune-from-image-pointcloud" in id)
    assert same_work["seconds_per_step"] == 0.25 and not same_work["done"]
    assert made["pretrain pointcloud seed0"]["step_cost_from"] == "counted"

    assert set(made) - {each["id"] for each in document("curves", "--remaining")["trainings"]} == {image.id}
    assert {each["step_cost_from"] for each in document("curves", "--counted")["trainings"]} == {"counted"}


def test_a_gpu_is_preferred_and_a_device_can_be_chosen():
    cpu, gpu = StepCost(9.0, "cpu", "results"), StepCost(1.0, "NVIDIA X", "measured")
    assert step_costs.best([cpu, gpu]) == gpu and step_costs.best([cpu, gpu], "cpu") == cpu
    assert step_costs.best([gpu, StepCost(2.0, "NVIDIA X", "results")]).basis == "results"
    assert step_costs.best([cpu], "NVIDIA X") is None and step_costs.best([]) is None


def test_measuring_once_is_enough(tmp_path, document, capsys):
    first = document("curves", "--measure")
    assert {each["step_cost_from"] for each in first["trainings"]} == {"measured"}
    assert all(0 < each["seconds_per_step"] < 60 for each in first["trainings"])
    kept = (tmp_path / "results" / "step_costs.json").read_text()
    assert document("curves", "--measure") == first == document("curves")
    assert (tmp_path / "results" / "step_costs.json").read_text() == kept

    (tmp_path / "results" / "step_costs.json").write_text(kept[:-20])
    assert main(["plan", "--config", str(TINY), "--set", f"results={tmp_path / 'results'}"]) == 2
    assert "step_costs.json" in capsys.readouterr().err


def test_one_process_measures_recipes_of_several_precisions():
    seen = []

    def loss(model, batch):
        output = model(batch)
        seen.append(output.dtype)
        return output.float().mean(), {}

    for precision, dtype in (("no", torch.float32), ("bf16", torch.bfloat16), ("no", torch.float32)):
        seen.clear()
        settings = TrainingSettings(epochs=1, batch_size=2, lr=0.1, precision=precision)
        assert step_seconds(torch.nn.Linear(3, 2), loss, torch.ones(2, 3), settings, "cpu") > 0
        assert set(seen) == {dtype}


class Checkpointed(torch.nn.Linear):
    """A layer that notes how it was set up."""

    def __init__(self):
        super().__init__(3, 2)
        self.noted = []

    def set_grad_checkpointing(self, enable):
        self.noted.append(enable)

    def compile(self):
        self.noted.append("compile")


@pytest.mark.parametrize("on", [True, False])
def test_steps_have_the_execution_settings_of_the_recipe(on):
    model = Checkpointed()
    model.convolution = torch.nn.Conv2d(3, 4, 2)
    switches = dict.fromkeys(("activation_checkpointing", "compile", "tf32", "channels_last"), on)
    settings = TrainingSettings(epochs=1, batch_size=2, lr=0.1, **switches)
    stepper = Stepper(model, lambda model, batch: (model(batch).mean(), {}), settings, "cpu")
    stepper.micro_batch(torch.ones(2, 3))
    stepper.update()
    assert model.noted == [True, "compile"] * on
    assert model.convolution.weight.is_contiguous() is not on
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is on


@pytest.mark.parametrize("setting", ["compile", "tf32", "channels_last"])
def test_steps_with_other_kernels_have_another_cost(setting):
    plan = Plan.load(TINY)
    stored = next(iter(plan.runs.values())).spec.stored
    recipe = stored["recipe"]
    other = {**stored, "recipe": {**recipe, "training": {**recipe["training"], setting: True}}}
    assert cost_key(other) != cost_key(stored)
