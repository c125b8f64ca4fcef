"""`m2pt rehearse`: two steps of each kind of training, each in a process, and what does not run is named."""

import json
import math
import os
from multiprocessing import get_context
from pathlib import Path

import pytest
from tiny_trainings import TINY

from m2pt import catalog
from m2pt.commands import main
from m2pt.ops import rehearse as module
from m2pt.ops.measure import measure_missing
from m2pt.ops.rehearse import Rehearsal, _in_a_process, _two_steps, kinds_of_training
from m2pt.ops.step_costs import (
    MEASURED,
    REHEARSED,
    RESULTS,
    StepCost,
    best,
    cost_key,
    measured_costs,
    save_measurements,
)
from m2pt.plan.plan import Plan


def test_every_kind_of_training_takes_two_steps_and_starts_at_the_loss_of_chance():
    plan = Plan.load(TINY)
    found = {training: _two_steps(plan, training, 2) for training, *_ in kinds_of_training(plan)}
    for result in found.values():
        assert result.is_sound and len(result.losses) == 2, result
        assert result.seconds > result.update_seconds > 0 and result.device == "cpu", result
        assert result.parameters >= result.trained > 0 and result.peak_bytes > 2**20
        assert result.expected.keys() == result.initial.keys()
        assert result.initial.get("loss", result.losses[0]) == result.losses[0]
    assert len({training.kind for training in found}) >= 3
    known = {training.run.experiment.task for training in found if training.run and found[training].expected}
    assert known == {name for name in catalog.TASKS if name != "multimodal_classification"}


@pytest.mark.parametrize(("loss", "is_sound"), [(2.4, True), (2.9, False), (0.0, False), (math.nan, False)])
def test_a_loss_that_starts_elsewhere_than_its_task_says_is_a_fault(loss, is_sound):
    result = Rehearsal("x", losses=(2.3,), initial={"loss": 2.3, "mask": loss}, expected={"mask": 2.303})
    assert result.is_sound is is_sound
    assert [fault.startswith("mask starts at ") for fault in result.faults] == [True] * (not is_sound)


def test_the_command_prints_a_line_for_each_and_names_what_fails(monkeypatch, capsys):
    class Training:
        def __init__(self, name):
            self.id = name

    monkeypatch.setattr(module, "kinds_of_training", lambda _: [[Training("one")], [Training("two")]])

    def outcome(name, *_):
        if name == "two":
            return Rehearsal(name, error="it does not fit")
        numbers = {"tokens": 196, "parameters": 10, "trained": 5, "seconds": 1.0, "peak_bytes": 2**30}
        starts = {"initial": {"loss": 2.3, "mask": 0.7}, "expected": {"loss": expected, "mask": 0.6931}}
        return Rehearsal(name, **numbers, **starts, losses=(2.3, 2.2))

    monkeypatch.setattr(module, "_in_a_process", outcome)
    expected = 2.303
    assert main(["rehearse", "--config", str(TINY)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["196", "10", "5", "2.3", "2.2", "2.303", "1.00", "1.0", "one"]
    assert printed[2].split() == ["mask", "0.7", "0.6931"]
    assert printed[3] == "two: it does not fit"
    monkeypatch.setattr(module, "kinds_of_training", lambda _: [[Training("one"), Training("like one")]])
    assert main(["rehearse", "--config", str(TINY)]) == 0
    expected = 6.908
    capsys.readouterr()
    assert main(["rehearse", "--config", str(TINY)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[3].startswith("one: loss starts at 2.3, but an untrained model gives about 6.908: check")
    for batch in ("1", "3", "0"):
        assert main(["rehearse", "--batch", batch, "--config", str(TINY)]) == 2
        assert f"--batch {batch}: give an even number" in capsys.readouterr().err


def test_a_process_that_is_killed_or_fails_is_reported():
    assert _in_a_process("x", lambda: Rehearsal("x", 5)) == Rehearsal("x", 5)
    assert "killed" in _in_a_process("x", lambda: os._exit(9)).error
    error = _in_a_process("x", _fail).error
    assert error.startswith("KeyError: 'head' (") and "test_rehearse.py, line " in error


def _fail():
    raise KeyError("head")


def test_subsets_of_a_dataset_are_one_kind_of_training():
    plan = Plan.load(Path("config/paper.yaml"))
    rehearsed = [training.spec.dataset for training, *_ in kinds_of_training(plan)]
    assert {each.name for each in rehearsed} >= {"shapenetpart", "partnet"}
    assert len({each.key for each in rehearsed}) == len({each.name for each in rehearsed})


def test_the_plan_takes_the_times_that_a_rehearsal_saved(tmp_path, monkeypatch, capsys):
    words = ["--config", str(TINY), "--set", f'results="{tmp_path}"']

    def planned():
        capsys.readouterr()
        assert main(["plan", "--json", *words]) == 0
        return json.loads(capsys.readouterr().out)["trainings"]

    def outcome(name, _):
        return Rehearsal(name, losses=(2.3, 2.2), seconds=1.0, update_seconds=0.25, device="cpu")

    monkeypatch.setattr(module, "_in_a_process", outcome)
    before = planned()
    assert {each["step_cost_from"] for each in before} == {"counted"}
    assert main(["rehearse", "--batch", "4", *words]) == 0
    assert not (tmp_path / "step_costs.json").exists() and planned() == before
    assert main(["rehearse", "--batch", "4", "--save", *words]) == 0
    plan = Plan.load(TINY, {"results": str(tmp_path)})
    samples = {each.id: each.settings.effective_batch() for kind in kinds_of_training(plan) for each in kind}
    for each in planned():
        assert each["step_cost_from"] == "rehearsed"
        assert each["seconds_per_step"] == pytest.approx(0.75 / 4 * samples[each["id"]] + 0.25), each
    assert len({each["seconds_per_step"] for each in planned()}) > 1
    assert main(["plan", *words]) == 0
    assert (
        "rehearsed on cpu" in (said := capsys.readouterr().out) and "extrapolated from a few samples" in said
    )


def test_measured_times_are_worth_more_than_rehearsed_ones(tmp_path, monkeypatch):
    plan = Plan.load(TINY, {"results": str(tmp_path)})
    first, second, *_ = [alike[0] for alike in kinds_of_training(plan)]
    measured, rehearsed = cost_key(first.stored), cost_key(second.stored)
    save_measurements(tmp_path, {measured: {"seconds": 7.0}}, "cpu")
    monkeypatch.setattr(module, "_in_a_process", lambda name, _: Rehearsal(name, seconds=1.0, device="cpu"))
    for _ in module.rehearse(plan, 2, save=True):
        pass
    costs = measured_costs(tmp_path)
    assert costs[measured] == [StepCost(7.0, "cpu", MEASURED)]
    assert [each.basis for each in costs[rehearsed]] == [REHEARSED]
    monkeypatch.setattr("m2pt.ops.measure.step_seconds", lambda *_: 9.0)
    measure_missing(plan, {measured: first, rehearsed: second})
    costs = measured_costs(tmp_path)
    assert costs[measured] == [StepCost(7.0, "cpu", MEASURED)]
    assert costs[rehearsed] == [StepCost(9.0, "cpu", MEASURED)]


def test_a_rehearsal_of_more_samples_is_kept(tmp_path, monkeypatch):
    plan = Plan.load(TINY, {"results": str(tmp_path)})
    monkeypatch.setattr(module, "_in_a_process", lambda name, _: Rehearsal(name, seconds=1.0, device="cpu"))
    found = []
    for batch in (4, 2, 4, 6):
        for _ in module.rehearse(plan, batch, save=True):
            pass
        found.append(json.loads((tmp_path / "step_costs.json").read_text()))
    samples = [
        {entry["samples"] for devices in each.values() for entry in devices.values()} for each in found
    ]
    assert samples == [{4}, {4}, {4}, {6}]


def test_processes_that_save_at_once_lose_nothing(tmp_path):
    context = get_context("fork")
    processes = [context.Process(target=_save_many, args=(tmp_path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(measured_costs(tmp_path)) == 40


def _save_many(results, name):
    for number in range(20):
        save_measurements(results, {f"{name}{number}": {"seconds": 1.0}}, "cpu")


def test_the_best_cost_is_of_a_gpu_and_then_of_the_best_origin():
    costs = [
        StepCost(1.0, "cpu", RESULTS),
        StepCost(2.0, "GPU", REHEARSED),
        StepCost(3.0, "GPU", MEASURED),
    ]
    assert best(costs) == costs[2]
    assert best(costs, "cpu") == costs[0]
    assert best(costs[:2]) == costs[1]
