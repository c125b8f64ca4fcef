"""A stranger adds a modality, a layout or a task with one module and one entry, and reads what is missing."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml

from m2pt import catalog
from m2pt.commands import main
from m2pt.formats.documents import read_yaml
from m2pt.formats.weights import load_weights, save_weights
from m2pt.models.bodies import build_body
from m2pt.models.transformer import build_encoder
from m2pt.plan.jobs import jobs, trainings
from m2pt.plan.plan import Plan
from m2pt.plan.rules import Rules
from m2pt.run_files import ATTACHED, EVALUATION, MERGED, METRICS

TINY = read_yaml(Path("tests/tiny/config.yaml"))
IMAGE_RECIPE = "tests/tiny/recipes/pretrain_image.yaml"
ARRAYS = "strangers.arrays"
DEPTH = catalog.Modality(
    settings="strangers.depth_maps:DepthMaps", tokenizer="strangers.depth_maps:DepthTokenizer"
)
DEPTH_LAYOUT = catalog.Layout(
    modality="depth",
    labels="class",
    reader="strangers.depth_maps",
    augmentation="strangers.depth_maps:Noise",
)
ARRAYS_LAYOUT = catalog.Layout(
    modality="image", labels="class", reader=ARRAYS, augmentation="strangers.arrays:Noise"
)
ONE_HOT = catalog.Task(
    kind="finetune",
    labels="class",
    metrics=("errors",),
    task="strangers.one_hot:OneHotRegression",
    recipe="strangers.one_hot:OneHotRecipe",
)
TRAINING = {"steps": 2, "batch_size": 4, "lr": 1.0e-3, "log_every": 1}


@pytest.fixture
def write(tmp_path):
    """Write a config with one column of one row, and what is added to the tiny one; return its path."""

    def write_config(*, column=(), row=(), **sections):
        column = {
            "name": "c",
            "group": "g",
            "title": "t",
            "metric": "top1",
            "task": "classification",
            "dataset": "imagenet",
            "mode": "tune",
            **dict(column),
        }
        column = {key: value for key, value in column.items() if value is not None}
        row = {
            "method": "m",
            "setting": "pretrained",
            "columns": ["c"],
            "run": {"target_init": "image"} | dict(row),
        }
        table = {"title": "t", "caption": "c", "columns": [column], "rows": [row]}
        (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
        config = {key: TINY[key] for key in ("seeds", "threads", "device", "backbone", "modalities")}
        config |= {key: {"imagenet": TINY[key]["imagenet"]} for key in ("datasets", "finetune")}
        config |= {"encoders": {"image": TINY["encoders"]["image"]}}
        config |= {"results": str(tmp_path / "results"), "checkpoints": str(tmp_path / "checkpoints")}
        config["tables"] = [str(tmp_path / "table.yaml")]
        for section, added in sections.items():
            config[section] = {**config.get(section, {}), **added}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write_config


@pytest.fixture
def recipe(tmp_path):
    def write_recipe(**settings):
        path = tmp_path / f"recipe{len(list(tmp_path.glob('recipe*')))}.yaml"
        path.write_text(yaml.safe_dump({"training": TRAINING, **settings}))
        return str(path)

    return write_recipe


@pytest.fixture
def depth(monkeypatch):
    monkeypatch.setitem(catalog.MODALITIES, "depth", DEPTH)
    monkeypatch.setitem(catalog.LAYOUTS, "depth_maps", DEPTH_LAYOUT)


def depth_sections(recipe):
    section = {"input": {"image_size": 32}, "tokenizer": {"patch_size": 8}}
    decoder = {"dim": 16, "depth": 1, "num_heads": 2}
    encoder = {"modality": "depth", "dataset": "depth", "pretrain": recipe(mask_ratio=0.5, decoder=decoder)}
    return {
        "modalities": {"depth": section},
        "datasets": {"depth": {"layout": "depth_maps", "num_classes": 2, "miniature": {"seed": 0}}},
        "encoders": {"depth": encoder},
        "row": {"target_init": "scratch", "pathway": {"auxiliaries": ["depth"]}},
    }


def run(*words):
    assert main([*words]) == 0


def trained(config, name):
    """Finetune, merge and evaluate a run; return what evaluation.json says."""
    folder = Plan.load(config).run_directory(name, 0)
    run("finetune", name, "--config", str(config))
    run("merge", str(folder / "attached.safetensors"), str(folder / "merged.safetensors"))
    run("evaluate", name, "--config", str(config))
    return json.loads((folder / "evaluation.json").read_text())


def faults(capsys, config):
    """What `m2pt check` says, which is to be no traceback."""
    capsys.readouterr()
    assert main(["check", "--config", str(config)]) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return said.err


# ---- a modality --------------------------------------------------------------------------------------------


def test_a_new_modality_is_pretrained_and_attached(depth, write, recipe, capsys):
    config = write(**depth_sections(recipe))
    run("check", "--config", str(config))
    plan = Plan.load(config)
    (attached,) = plan.runs.values()
    assert attached.spec.stored["inputs"]["depth"]["architecture"]["modality"] == "depth"
    assert attached.spec.stored["inputs"]["depth"]["recipe"]["augmentation"] == {"noise": 0.0}
    run("data", "build", "depth", "--config", str(config))
    run("pretrain", "depth", "--seed", "0", "--config", str(config))
    state, _ = load_weights(plan.encoder_directory("depth", 0) / "encoder.safetensors")
    assert state["patch_embed.proj.weight"].shape == (16, 1, 8, 8)
    run("data", "build", "imagenet", "--config", str(config))
    run("finetune", attached.name, "--config", str(config))
    state, _ = load_weights(plan.run_directory(attached.name, 0) / "attached.safetensors")
    assert "blocks.0.attn.qkv.pathways.depth.weight" in state
    run("plan", "table", "--config", str(config))
    assert "pretrain" in capsys.readouterr().out


def test_a_missing_section_of_the_config_is_named(depth, write, recipe, capsys):
    sections = depth_sections(recipe)
    del sections["modalities"]
    said = faults(capsys, write(**sections))
    assert "encoders.depth: modality depth needs a section modalities.depth; add it." in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": "strangers.depth_maps:DepthMap"}, "has no 'DepthMap'; did you mean 'DepthMaps'?"),
        (
            {"settings": "strangers.dept:DepthMaps"},
            "modality depth: settings: strangers.dept cannot be imported",
        ),
        (
            {"tokenizer": "strangers.depth_maps:Tokens"},
            "modality depth: tokenizer: strangers.depth_maps has no",
        ),
        (
            {"tokenizer": "strangers.depth_maps:Noise"},
            "depth: tokenizer: Noise lacks adapt, build",
        ),
    ],
)
def test_what_a_modality_s_entry_lacks_is_named(depth, write, recipe, capsys, monkeypatch, change, words):
    monkeypatch.setitem(catalog.MODALITIES, "depth", replace(DEPTH, **change))
    assert words in faults(capsys, write(**depth_sections(recipe)))


def test_methods_that_a_tokenizer_lacks_are_named(depth, write, recipe, capsys, monkeypatch):
    from m2pt.modalities.tokenizer import Tokenizer

    module = ModuleType("strangers.incomplete")
    module.DepthTokenizer = type("DepthTokenizer", (Tokenizer,), {"forward": lambda self, x: x})
    monkeypatch.setitem(sys.modules, "strangers.incomplete", module)
    entry = replace(DEPTH, tokenizer="strangers.incomplete:DepthTokenizer")
    monkeypatch.setitem(catalog.MODALITIES, "depth", entry)
    said = faults(capsys, write(**depth_sections(recipe)))
    assert (
        "modality depth: tokenizer: DepthTokenizer lacks build, decoder_positions, draw_mask, target" in said
    )


def test_an_attribute_that_a_tokenizer_does_not_set_is_named(depth, write, recipe, capsys, monkeypatch):
    from strangers import depth_maps

    def forgetful(self, *arguments, **settings):
        build(self, *arguments, **settings)
        del self.target_dim

    build = depth_maps.DepthTokenizer.__init__
    monkeypatch.setattr(depth_maps.DepthTokenizer, "__init__", forgetful)
    said = faults(capsys, write(**depth_sections(recipe)))
    assert "encoder depth: AttributeError: 'DepthTokenizer' object has no attribute 'target_dim' (" in said


def test_a_setting_of_a_new_modality_is_named_with_its_path(depth, write, recipe, capsys):
    sections = depth_sections(recipe)
    sections["modalities"]["depth"] = {"input": {"image_size": 0}, "tokenizer": {"patch": 8}}
    said = faults(capsys, write(**sections))
    assert "modalities.depth.input.image_size = 0: must be >= 1." in said
    assert "modalities.depth.tokenizer.patch: unknown key; did you mean 'patch_size'?" in said


def test_an_unknown_modality_of_a_config_is_named(write, capsys):
    said = faults(capsys, write(modalities={"immage": {}}))
    assert "modalities.immage: unknown key; did you mean 'image'?" in said


# ---- a layout ----------------------------------------------------------------------------------------------


def arrays_sections(recipe):
    return {
        "datasets": {"letters": {"layout": "arrays", "num_classes": 2, "miniature": {"seed": 0}}},
        "finetune": {"letters": {"scratch_tune": recipe(augmentation={"noise": 0.1})}},
        "column": {"dataset": "letters"},
        "row": {"target_init": "scratch"},
    }


def test_a_new_layout_is_classified(write, recipe, monkeypatch):
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", ARRAYS_LAYOUT)
    config = write(**arrays_sections(recipe))
    run("check", "--config", str(config))
    (name,) = Plan.load(config).runs
    run("data", "build", "letters", "--config", str(config))
    result = trained(config, name)
    assert result["metrics"].keys() == {"top1"} and result["spec"]["recipe"]["augmentation"] == {"noise": 0.1}


def test_what_a_layout_s_module_lacks_is_named(write, recipe, capsys, monkeypatch):
    module = ModuleType("strangers.empty")
    monkeypatch.setitem(sys.modules, "strangers.empty", module)
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, reader="strangers.empty"))
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert "layout arrays: reader: strangers.empty lacks Reader, check, classes, counts, files, " in said
    assert "layout arrays: miniature: strangers.empty lacks build" in said


def test_an_augmentation_without_defaults_is_named(write, recipe, capsys, monkeypatch):
    entry = replace(ARRAYS_LAYOUT, augmentation="strangers.one_hot:Settings")
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", entry)
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert (
        "layout arrays: augmentation: every field of strangers.one_hot:Settings must have a default" in said
    )


def test_a_layout_of_an_unknown_modality_is_named(write, recipe, capsys, monkeypatch):
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, modality="imge"))
    assert "there is no modality 'imge'; did you mean 'image'?" in faults(
        capsys, write(**arrays_sections(recipe))
    )


SYNTAX, RAISES, EXITS = "def (", "undefined", "raise SystemExit(3)"


@pytest.mark.parametrize("text", [SYNTAX, RAISES, EXITS, "raise ValueError('no')"])
def test_a_module_that_cannot_be_imported_is_named(write, recipe, capsys, monkeypatch, tmp_path, text):
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, reader="broken_module"))
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert "layout arrays: reader: broken_module cannot be imported: " in said


@pytest.mark.parametrize("path", ["", ".arrays", None, 3, "a b", "strangers.arrays:"])
def test_a_path_of_another_form_is_named(write, recipe, capsys, monkeypatch, path):
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, reader=path))
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert f"layout arrays: reader: must be 'package.module:Name' or 'package.module', got {path!r}" in said


@pytest.mark.parametrize("entry", [{}, "strangers.arrays", DEPTH])
def test_an_entry_of_another_form_is_named(write, recipe, capsys, monkeypatch, entry):
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", entry)
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert f"dataset layout arrays: the entry must be a Layout, got {type(entry).__name__}" in said


def test_a_member_that_cannot_be_called_is_named(write, recipe, capsys, monkeypatch):
    module = ModuleType("strangers.not_callable")
    vars(module).update({**vars(sys.modules[ARRAYS]), "check": [], "Reader": 3})
    monkeypatch.setitem(sys.modules, "strangers.not_callable", module)
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, reader="strangers.not_callable"))
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert "layout arrays: reader: strangers.arrays lacks " in said and "check" in said


def test_whatever_a_tokenizer_raises_is_named_with_its_place(write, recipe, capsys, monkeypatch, depth):
    def fail(*_, **__):
        raise ZeroDivisionError("in a stranger's tokenizer")

    monkeypatch.setattr("strangers.depth_maps.DepthTokenizer.build", fail)
    said = faults(capsys, write(**depth_sections(recipe)))
    assert "ZeroDivisionError: in a stranger's tokenizer (" in said and "test_additions.py, line" in said


# ---- a task ------------------------------------------------------------------------------------------------


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


def test_a_misspelt_task_of_a_column_is_named(write, capsys):
    said = faults(capsys, write(column={"task": "clasification"}))
    assert "columns.0.task = 'clasification': there is no task 'clasification'; did you mean" in said


# ---- a kind of run -----------------------------------------------------------------------------------------

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
    assert "no run 'x' in this config" in capsys.readouterr().err
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


# ---- an auxiliary of a modality that the project does not have ---------------------------------------------


def test_a_convolutional_file_of_any_modality_is_an_auxiliary(write, tmp_path):
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
    state = build_body({"modality": None, "body": "convnext", "convnext": sizes}).state_dict()
    del state["stem.0.weight"]
    save_weights(tmp_path / "eeg.safetensors", state, {})
    encoders = {
        "eeg": {"file": str(tmp_path / "eeg.safetensors"), "body": "convnext"},
        "start": {"modality": "image", "body": "convnext", "random": True},
    }
    pathway = {"auxiliaries": ["eeg"], "layers": ["mlp.fc1"]}
    finetune = {"imagenet": {"convnext_tune": "tests/tiny/recipes/imagenet_convnext_tune.yaml"}}
    config = write(
        encoders=encoders,
        row={"target_init": "start", "pathway": pathway},
        finetune=finetune,
        convnext={key: list(value) for key, value in sizes.items()},
    )
    run("check", "--config", str(config), "--encoders", "eeg")
    run("import", "eeg", "--seed", "0", "--config", str(config))


@pytest.mark.parametrize("modality", [{"modality": "eeg"}, {}])
def test_a_file_of_any_modality_is_an_auxiliary(write, tmp_path, modality):
    encoder = build_encoder(
        "image", input={"image_size": 8}, tokenizer={"patch_size": 8}, backbone=TINY["backbone"]
    )
    state = {key: value for key, value in encoder.state_dict().items() if key.startswith("blocks.")}
    save_weights(tmp_path / "eeg.safetensors", state | {"electrodes": torch.zeros(3)}, {})
    eeg = {"file": str(tmp_path / "eeg.safetensors"), **modality}
    config = write(encoders={"eeg": eeg}, row={"target_init": "scratch", "pathway": {"auxiliaries": ["eeg"]}})
    run("check", "--config", str(config), "--encoders", "eeg")
    run("data", "build", "imagenet", "--config", str(config))
    run("import", "eeg", "--seed", "0", "--config", str(config))
    plan = Plan.load(config)
    (name,) = plan.runs
    run("finetune", name, "--seed", "0", "--config", str(config))
    attached, _ = load_weights(plan.run_directory(name, 0) / "attached.safetensors")
    assert "blocks.0.attn.qkv.pathways.eeg.weight" in attached


def test_a_target_starts_from_a_file_of_its_own_modality(write, capsys):
    config = write(encoders={"eeg": {"file": "eeg.pth"}}, row={"target_init": "eeg"})
    said = faults(capsys, config)
    assert (
        "encoders.eeg: targets start from it, so that it needs their modality; give modality: one of" in said
    )


def test_only_a_file_can_do_without_a_modality(write, capsys):
    encoder = {"dataset": "imagenet", "pretrain": IMAGE_RECIPE}
    assert "modality is required" not in faults(capsys, write(encoders={"x": {"modality": "eg", **encoder}}))
    assert "modality is required unless file" in faults(capsys, write(encoders={"x": encoder}))
