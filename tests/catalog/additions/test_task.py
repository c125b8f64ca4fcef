"""A stranger adds a task with one module and one entry, and reads what is missing."""

import sys
from dataclasses import replace
from types import ModuleType

from strangers.commands import faults, run, trained
from strangers.entries import ONE_HOT

from m2pt import catalog
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


def test_a_misspelled_task_of_a_column_is_named(write, capsys):
    said = faults(capsys, write(column={"task": "clasification"}))
    assert "columns.0.task = 'clasification': there is no task 'clasification'; did you mean" in said
