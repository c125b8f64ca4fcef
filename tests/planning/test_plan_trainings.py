"""Which trainings are behind tables, in which order, and of how many steps."""

import json
from pathlib import Path

import pytest
from tiny_trainings import TINY

from m2pt.commands import main
from m2pt.errors import InputError
from m2pt.planning.items import PUBLISHED, parse_items, training_items
from m2pt.planning.jobs import trainings
from m2pt.reporting.lineage import steps as commands
from m2pt.schema.plan import Plan

PAPER = Path("config/paper.yaml")


def test_the_trainings_are_those_of_the_commands_behind_the_runs(tiny):
    plan = Plan.load(TINY)
    every = [step for run in plan.runs.values() for step in commands(plan, run, 0)]
    folders = {step.training for step in every if step.training}
    assert {training.directory for training in tiny.values()} == folders


def test_a_training_comes_after_those_whose_weights_it_reads():
    plan = Plan.load(TINY, {"seeds": [0, 1, 2], "pretrain_seeds": [0, 1]})
    every = trainings(plan, plan.runs.values())
    known: dict[str, object] = {}
    for training in every:
        assert all(need in known for need in training.needs)
        known[training.id] = training
        if training.run is not None:
            read = plan.input_weights(training.name, training.seed).values()
            folders = {known[need].directory for need in training.needs}
            not_trained = {"random", "image_convnext"}
            expected = {path.parent for path in read if path.parent.parent.name not in not_trained}
            early = plan.encoder_directory("pointcloud_early", plan.pretrain_seed(training.seed))
            if early in expected:
                expected = expected - {early} | {early.parent.parent / "pointcloud" / early.name}
            assert folders == expected
    assert {t.seed for t in every if t.run is None} == {0, 1} and {t.seed for t in every if t.run} == {
        0,
        1,
        2,
    }


def test_a_figure_asks_for_the_runs_of_its_cells_alone(document):
    ids = {each["id"] for each in document("curves")["trainings"]}
    assert {id.rpartition("-")[0] or id for id in ids} == {
        "pretrain image seed0",
        "pretrain pointcloud seed0",
        "finetune imagenet-tune-from-image",
        "finetune imagenet-tune-from-image-pointcloud",
    }


def test_steps_are_epochs_of_whole_batches(document):
    recipe = Plan.load(TINY).encoder("image").spec["recipe"]["training"]
    pretraining = document("curves")["trainings"][0]
    batch = recipe["batch_size"] * recipe["accumulation"]
    assert pretraining["id"] == "pretrain image seed0" and pretraining["items"] == 60
    assert pretraining["steps"] == recipe["epochs"] * (60 // batch) > 0
    given = document("curves", "--items", "imagenet=1000")["trainings"][0]
    assert (given["steps"], given["items_from"]) == (recipe["epochs"] * (1000 // batch), "--items")


def test_the_published_sizes_are_those_of_their_datasets_only():
    plan = Plan.load(PAPER)
    spec = plan.encoder("image").spec
    assert training_items(plan, spec, {}).count == 1_281_167
    other = {**spec, "dataset": {**spec["dataset"], "num_classes": 100}}
    assert training_items(plan, other, {}) is None
    assert training_items(plan, plan.encoder("text").spec, {}) is None
    fine = {name: size.items for name, size in PUBLISHED.items() if name.startswith("partnet/")}
    # PartNet has 18,112 training shapes in 24 categories, seven of which have no finest level
    assert sum(fine.values()) + sum((92, 131, 170, 111, 306, 138, 45)) == 18_112
    assert set(fine) == {f"partnet/{subset}" for subset in plan.config.datasets["partnet"].subsets}


def test_a_dataset_on_disk_is_counted(tmp_path, imagenet):
    datasets = {**json.loads(Plan.load(TINY).config.model_dump_json())["datasets"]}
    datasets["imagenet"] = {"layout": "imagenet", "num_classes": 10, "root": str(imagenet)}
    plan = Plan.load(TINY, {"results": str(tmp_path), "datasets": datasets})
    spec = plan.encoder("image").spec
    assert training_items(plan, spec, {}).count == len(list(imagenet.glob("train/*/*.JPEG"))) == 60
    plan.manifest("imagenet").parent.mkdir()
    plan.manifest("imagenet").write_text(json.dumps({"items": {"train": 59}}))
    assert training_items(plan, spec, {}).count == 59


def test_what_nobody_knows_is_left_out_and_said(tmp_path, capsys):
    config = Plan.load(TINY).config.model_dump(mode="json")
    root = tmp_path / "absent"
    datasets = {
        **config["datasets"],
        "imagenet": {"layout": "imagenet", "num_classes": 10, "root": str(root)},
    }
    overrides = ["--set", f"datasets={json.dumps(datasets)}", "--set", f"results={tmp_path}"]
    assert main(["plan", "curves", "--config", str(TINY), *overrides]) == 0
    said = capsys.readouterr().out
    assert "NOT IN THE SUM: 3 trainings of unknown length" in said and "give --items imagenet=N" in said


def test_a_split_smaller_than_a_batch_is_named():
    with pytest.raises(InputError, match="--items text"):
        parse_items(["text=many"])
    assert main(["plan", "curves", "--config", str(TINY), "--items", "imagenet=3"]) == 2
    assert main(["plan", "curves", "--config", str(TINY), "--items", "imagnet=300"]) == 2
