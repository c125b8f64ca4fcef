"""A stranger adds a task with one module and one entry, and reads what is missing."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from strangers.commands import faults, run, trained
from strangers.entries import ONE_HOT
from torch import nn

from m2pt import catalog
from m2pt.commands import main
from m2pt.plan.plan import Plan


def one_hot_sections(recipe):
    return {
        "finetune": {"imagenet": {"scratch_tune": recipe(model={"bias": True})}},
        "column": {"task": "one_hot", "metric": "errors"},
        "row": {"target_init": "scratch"},
    }


def test_a_new_task_is_trained_and_evaluated(write, recipe, monkeypatch):
    monkeypatch.setitem(catalog.TASKS, "one_hot", ONE_HOT)
    config = write(**one_hot_sections(recipe))
    run("check", "--config", str(config))
    plan = Plan.load(config)
    (name,) = plan.runs
    assert plan.runs[name].spec.stored["recipe"]["model"] == {"bias": True}
    run("data", "build", "imagenet", "--config", str(config))
    result = trained(config, name)
    assert result["metrics"].keys() == {"errors"}


def test_what_a_task_lacks_is_named(write, recipe, capsys, monkeypatch):
    module = ModuleType("strangers.incomplete_task")
    module.Task = type("Task", (), {"from_recipe": classmethod(lambda cls, *_: cls())})
    monkeypatch.setitem(sys.modules, "strangers.incomplete_task", module)
    monkeypatch.setitem(catalog.TASKS, "one_hot", replace(ONE_HOT, task="strangers.incomplete_task:Task"))
    said = faults(capsys, write(**one_hot_sections(recipe)))
    assert "task one_hot: task: Task lacks build_model, collate, loss, measure, predict, summarize" in said


def fail(*_, **__):
    raise ZeroDivisionError("by nought")


def no_gradient(self, model, batch):
    return self.predict(model, batch).mean().detach(), {}


class Headless(nn.Module):
    """A model that has nothing to start from."""

    def __init__(self, *_, **__):
        super().__init__()
        self.head = nn.Linear(32, 10)


class Normed(Headless):
    """A model that starts with the norm, which its recipe does not say."""

    pretrained_parts = ("tokenizer", "blocks", "norm")


RETURNS = "loss must return a scalar with a gradient, and a dict of scalars; got "


@pytest.mark.parametrize(
    ("member", "found", "start", "words"),
    [
        ("loss", fail, "scratch", "ZeroDivisionError: by nought ("),
        (
            "loss",
            lambda self, model, batch: self.predict(model, batch),
            "scratch",
            f"{RETURNS}a tensor (4, 1",
        ),
        ("loss", lambda self, model, batch: None, "scratch", f"{RETURNS}None"),
        ("loss", no_gradient, "scratch", f"{RETURNS}(tensor("),
        ("build_model", fail, "scratch", "ZeroDivisionError: by nought ("),
        ("build_model", lambda *_, **__: nn.Linear(2, 1), "scratch", "the model does not take the inputs of"),
        ("build_model", Headless, "image", "Headless, which starts from an encoder, has no pretrained_parts"),
        ("build_model", Normed, "image", "OneHotRecipe.starts_with_norm is False, but norm is among the"),
    ],
)
def test_a_member_that_does_not_do_its_work_is_named(
    write, recipe, capsys, monkeypatch, member, found, start, words
):
    monkeypatch.setitem(catalog.TASKS, "one_hot", ONE_HOT)
    monkeypatch.setattr(f"strangers.one_hot.OneHotRegression.{member}", found)
    sections = one_hot_sections(recipe) | {"row": {"target_init": start}}
    recipes = sections["finetune"]["imagenet"]
    recipes["pretrained_tune"] = recipes["scratch_tune"]
    config = write(**sections)
    (name,) = Plan.load(config).runs
    assert f"run {name}: {words}" in faults(capsys, config)


@pytest.mark.parametrize("member", ["loss", "build_model"])
def test_what_fails_in_a_plan_is_named_with_its_training(write, recipe, capsys, monkeypatch, member):
    monkeypatch.setitem(catalog.TASKS, "one_hot", ONE_HOT)
    monkeypatch.setattr(f"strangers.one_hot.OneHotRegression.{member}", fail)
    config = write(**one_hot_sections(recipe))
    (name,) = Plan.load(config).runs
    assert main(["plan", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert f"training finetune {name} seed0: ZeroDivisionError: by nought (" in said
    assert "test_task.py, line" in said


def reads_a_number(predicted, labels):
    return predicted.mean() * labels.float().mean().item()


def reads_a_mask(predicted, labels):
    return predicted[labels > 3].mean()


def reads_an_array(predicted, labels):
    return predicted.mean() * labels.numpy().mean()


def counts_labels(predicted, labels):
    return (predicted.mean() * torch.bincount(labels)).mean()


@pytest.mark.parametrize("read", [reads_a_number, reads_a_mask, reads_an_array, counts_labels])
def test_a_loss_that_reads_values_is_not_at_fault(write, recipe, monkeypatch, read):
    def loss(self, model, batch):
        return read(self.predict(model, batch), batch[1]), {}

    monkeypatch.setitem(catalog.TASKS, "one_hot", ONE_HOT)
    monkeypatch.setattr("strangers.one_hot.OneHotRegression.loss", loss)
    run("check", "--config", str(write(**one_hot_sections(recipe))))


def test_a_misspelled_task_of_a_column_is_named(write, capsys):
    said = faults(capsys, write(column={"task": "clasification"}))
    assert "columns.0.task = 'clasification': there is no task 'clasification'; did you mean" in said
