"""A stranger adds a kind of run with one module and one entry, and reads what is missing."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from strangers.commands import faults, run
from strangers.entries import ONE_HOT

from m2pt import catalog
from m2pt.commands import main
from m2pt.formats.documents import read_yaml
from m2pt.plan.jobs import jobs, trainings
from m2pt.plan.plan import Plan
from m2pt.plan.rules import Rules
from m2pt.run_files import ATTACHED, EVALUATION, MERGED, METRICS

JOINT = catalog.Kind(
    label="jointly trained",
    help="train on several datasets at once",
    module="strangers.joint",
    outputs=(ATTACHED,),
    followed_by=(catalog.MERGE, catalog.EVALUATE),
    settings="strangers.joint:Settings",
    experiments="strangers.joint:experiments",
    recipe="strangers.joint:recipe",
    model="m2pt.build:finetune_model",
    interface="m2pt.tasks.target:FinetuneTask",
)
TALLY = catalog.FollowUp(
    command="tally", help="count", output=EVALUATION, module="strangers.tally", launchable=False
)


@pytest.fixture
def joint(monkeypatch):
    """Add the kind and a task of this kind; return a function that changes the kind."""

    def add(**changes):
        monkeypatch.setitem(catalog.KINDS, "joint", replace(JOINT, **changes))

    add()
    monkeypatch.setitem(catalog.TASKS, "one_hot", replace(ONE_HOT, kind="joint"))
    return add


def joint_sections(recipe):
    more = {"layout": "imagenet", "num_classes": 10, "miniature": {"seed": 1, "sizes": {"train": 10}}}
    settings = {"recipe": recipe(model={"bias": True}), "datasets": ["more"]}
    return {
        "datasets": {"more": more},
        "joint": {"imagenet": settings},
        "column": {"task": "one_hot", "metric": "errors", "mode": None},
        "row": {"target_init": "scratch"},
    }


def test_a_new_kind_of_run_is_trained_and_evaluated(joint, write, recipe):
    config = write(**joint_sections(recipe))
    run("check", "--config", str(config))
    plan = Plan.load(config)
    (name,) = plan.runs
    for dataset in ("imagenet", "more"):
        run("data", "build", dataset, "--config", str(config))
    run("joint", name, "--config", str(config))
    folder = plan.run_directory(name, 0)
    steps = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    assert [line["halved"] for line in steps if "halved" in line] == [1, 2]
    run("merge", str(folder / ATTACHED), str(folder / MERGED))
    run("evaluate", name, "--config", str(config))
    result = json.loads((folder / EVALUATION).read_text())
    assert result["metrics"].keys() == {"errors"}
    assert [each["name"] for each in result["spec"]["other_datasets"]] == ["more"]


def test_a_new_kind_of_run_is_planned(joint, write, recipe, capsys):
    config = write(**joint_sections(recipe))
    plan = Plan.load(config)
    (name,) = plan.runs
    assert name.startswith("imagenet-more-tune-from-scratch-")
    (training,) = trainings(plan)
    assert (training.kind, training.files, training.stage) == ("joint", (ATTACHED,), "imagenet")
    assert [job.command.split(" --")[0].split(" /")[0] for job in jobs(plan)] == [
        "m2pt data build imagenet",
        "m2pt data build more",
        f"m2pt joint {name}",
        "m2pt merge",
        f"m2pt evaluate {name}",
    ]
    rules = Rules([config], read_yaml(config))
    assert all(re.fullmatch(rules.runs(command), name) for command in ("joint", "merge", "evaluate"))
    assert not re.fullmatch(rules.runs("finetune"), name)
    manifests = [str(plan.manifest(dataset)) for dataset in ("imagenet", "more")]
    assert rules.run_manifests(SimpleNamespace(run=name)) == manifests
    run("plan", "--config", str(config))
    assert "jointly trained, attached" in capsys.readouterr().out
    assert main(["finetune", name, "--config", str(config)]) == 2
    made_by = f"run {name} is made by: m2pt joint {name}, followed by m2pt merge and m2pt evaluate"
    assert made_by in capsys.readouterr().err


def test_a_new_kind_of_run_may_evaluate_by_itself(joint, write, recipe):
    joint(outputs=(MERGED, EVALUATION), followed_by=())
    plan = Plan.load(write(**joint_sections(recipe)))
    (name,) = plan.runs
    assert jobs(plan)[-1].command.startswith(f"m2pt joint {name} ")
    assert jobs(plan)[-1].makes == plan.run_directory(name, 0) / EVALUATION


def test_a_new_kind_of_run_has_commands_of_its_own(joint, write, recipe):
    joint(followed_by=(TALLY,))
    config = write(**joint_sections(recipe))
    run("check", "--config", str(config))
    plan = Plan.load(config)
    (name,) = plan.runs
    assert jobs(plan)[-1].command.startswith(f"m2pt tally {name} --seed 0")
    run("tally", name, "--config", str(config))
    assert (plan.run_directory(name, 0) / EVALUATION).exists()


def test_commands_of_a_new_kind_of_run_are_listed_and_launched(joint, write, recipe, capsys):
    joint(followed_by=(TALLY,))
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert "joint     train on several datasets at once" in listed and "tally     count" in listed
    config = str(write(**joint_sections(recipe)))
    assert main(["launch", "joint", "x", "--config", config]) == 2
    assert "no run 'x' made by m2pt joint in this config" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["launch", "tally", "x"])
    assert "invalid choice: 'tally'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "m2pt.build:joint_model"}, "kind joint: model: m2pt.build has no 'joint_model'"),
        ({"interface": "m2pt.tasks.target:JointTask"}, "kind joint: interface: m2pt.tasks.target has no"),
        ({"experiments": "strangers.joint:cells"}, "kind joint: experiments: strangers.joint has no 'cells'"),
        ({"recipe": "strangers.joint:recipes"}, "kind joint: recipe: strangers.joint has no 'recipes'; did"),
        ({"settings": "strangers.joint:Setting"}, "kind joint: settings: strangers.joint has no 'Setting'"),
        (
            {"settings": "strangers.joint:recipe"},
            "kind joint: settings: strangers.joint:recipe must be a subc",
        ),
        ({"settings": "strangers.joint"}, "kind joint: settings: strangers.joint must be a subclass of"),
        ({"experiments": "strangers.joint"}, "column c: kind joint: experiments: TypeError: 'module' object"),
        ({"recipe": "strangers.joint"}, "kind joint: recipe: TypeError: 'module' object is not callable"),
        ({"column": ("datasets",)}, "kind joint: column: 'datasets' is not one of mode, transfer_from"),
        ({"module": None}, "kind joint: module of m2pt joint: m2pt.commands.joint cannot be imported"),
        ({"module": "strangers.one_hot"}, "module of m2pt joint: strangers.one_hot lacks add_arguments, run"),
        ({"followed_by": (catalog.MERGE,)}, "kind joint: the last file of outputs and followed_by must be"),
        (
            {"followed_by": (replace(TALLY, module=None),)},
            "kind joint: module of m2pt tally: m2pt.commands.tally cannot be imported",
        ),
    ],
)
def test_what_a_kind_s_entry_lacks_is_named(joint, write, recipe, capsys, change, words):
    joint(**change)
    assert words in faults(capsys, write(**joint_sections(recipe)))


def fail(*_):
    raise KeyError("stranger")


@pytest.mark.parametrize(
    ("function", "found", "words"),
    [
        ("experiments", fail, "column c: kind joint: experiments: KeyError: 'stranger' ("),
        ("experiments", lambda *_: None, "kind joint: experiments: TypeError: 'NoneType' object is not iter"),
        ("experiments", lambda *_: ["x"], "kind joint: experiments: must yield Experiments, got ('x',)"),
        ("recipe", fail, "kind joint: recipe: KeyError: 'stranger' ("),
        ("recipe", lambda *_: None, "kind joint: recipe: must return the path of a file, got None"),
    ],
)
def test_a_function_that_fails_is_named(joint, write, recipe, capsys, monkeypatch, function, found, words):
    monkeypatch.setattr(f"strangers.joint.{function}", found)
    assert words in faults(capsys, write(**joint_sections(recipe)))


TAKEN = "the catalog names a command '{0}', but m2pt {0} exists; rename it"
OTHER = "another entry has the command '{0}'; rename one"
FORM = "'{0}': a name has lower-case letters"
KEY = "kind {0}: '{0}' has another meaning in a config; rename the kind"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, TAKEN) for name in ("check", "data", "plan", "show", "tabulate")),
        *((name, OTHER) for name in ("merge", "evaluate")),
        *((name, FORM) for name in ("Joint", "a-b", "", "import")),
        *((name, KEY) for name in ("seeds", "datasets", "encoders", "backbone", "results", "model_dump")),
    ],
)
def test_a_kind_with_a_name_that_is_taken_is_refused(write, capsys, monkeypatch, name, words):
    monkeypatch.setitem(catalog.KINDS, name, JOINT)
    assert words.format(name) in faults(capsys, write())


@pytest.mark.parametrize("name", ["finetune", "datasets"])
def test_a_kind_cannot_replace_a_section_of_the_config(write, capsys, monkeypatch, name):
    settings = "strangers.joint:Settings" if name == "finetune" else None
    monkeypatch.setitem(catalog.KINDS, name, replace(JOINT, settings=settings))
    assert KEY.format(name) in faults(capsys, write())


@pytest.mark.parametrize(
    ("command", "words"), [("multimodal", OTHER), ("check", TAKEN), ("evaluate", OTHER), ("a-b", FORM)]
)
def test_a_command_after_a_kind_with_a_name_that_is_taken_is_refused(joint, capsys, command, words):
    joint(followed_by=(replace(TALLY, command=command),))
    assert main(["plan"]) == 2
    assert words.format(command) in capsys.readouterr().err


def test_the_summary_of_a_kind_may_have_a_percent_sign(joint, capsys):
    joint(help="train on 50% of several datasets")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "train on 50% of several datasets" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"column": {"mode": "tune"}}, "column c: one_hot takes no mode"),
        ({"column": {"transfer_from": "imagenet"}}, "column c: one_hot takes no transfer_from"),
        ({"joint": {}}, "column c: the config has no joint.imagenet section."),
        ({"joint": {"imagnet": {}}}, "joint: no dataset 'imagnet'; the datasets are imagenet, more"),
        ({"joint": {"imagenet": {"recpe": "x"}}}, "joint.imagenet.recpe: unknown key; did you mean 'recipe'"),
        ({"joint": {"imagenet": {"datasets": ["mroe"]}}}, "no dataset 'mroe' in the config; it has imagenet"),
        ({"joint": {"imagenet": {"datasets": ["imagenet"]}}}, "duplicate dataset 'imagenet'; each may be"),
    ],
)
def test_what_a_config_of_a_new_kind_lacks_is_named(joint, write, recipe, capsys, change, words):
    sections = joint_sections(recipe)
    complete = sections["joint"]["imagenet"]
    change = {section: dict(values) for section, values in change.items()}
    for name in change.get("joint", {}):
        change["joint"][name] = complete | change["joint"][name]
    sections["column"] |= change.pop("column", {})
    assert words in faults(capsys, write(**sections | change))


def test_a_task_of_an_unknown_kind_is_named(joint, write, recipe, capsys, monkeypatch):
    monkeypatch.setitem(catalog.TASKS, "one_hot", replace(ONE_HOT, kind="jont"))
    said = faults(capsys, write(**joint_sections(recipe)))
    assert "there is no kind of run 'jont'; did you mean 'joint'?" in said
