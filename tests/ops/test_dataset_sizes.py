"""Sizes of datasets, published or counted, and the steps of a training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_trainings import TINY

from m2pt import catalog
from m2pt.commands import main
from m2pt.errors import InputError
from m2pt.ops.dataset_sizes import parse_items, training_items
from m2pt.plan.plan import Plan

PAPER = Path("config/paper.yaml")


def test_steps_are_epochs_of_whole_batches(document):
    recipe = Plan.load(TINY).encoder("image").stored["recipe"]["training"]
    pretraining = document("curves")["trainings"][0]
    batch = recipe["batch_size"] * recipe["accumulation"]
    assert pretraining["id"] == "pretrain image seed0" and pretraining["items"] == 60
    assert pretraining["steps"] == recipe["epochs"] * (60 // batch) > 0
    given = document("curves", "--items", "imagenet=1000")["trainings"][0]
    assert (given["steps"], given["items_from"]) == (recipe["epochs"] * (1000 // batch), "--items")


def test_the_published_sizes_are_those_of_their_datasets_only():
    plan = Plan.load(PAPER)
    spec = plan.encoder("image")
    assert training_items(plan, spec, {}).count == 1_281_167
    settings = spec.dataset.settings.model_copy(update={"num_classes": 100})
    other = replace(spec, dataset=replace(spec.dataset, settings=settings))
    assert training_items(plan, other, {}) is None
    assert training_items(plan, plan.encoder("text"), {}) is None
    fine = {name: size.items for name, size in catalog.LAYOUTS["partnet"].published.items()}
    # PartNet has 18,112 training shapes in 24 categories, seven of which have no finest level
    assert sum(fine.values()) + sum((92, 131, 170, 111, 306, 138, 45)) == 18_112
    assert set(fine) == {f"partnet/{subset}" for subset in plan.config.datasets["partnet"].subsets}


def test_a_dataset_on_disk_is_counted(tmp_path, imagenet):
    datasets = {**json.loads(Plan.load(TINY).config.model_dump_json())["datasets"]}
    datasets["imagenet"] = {"layout": "imagenet", "num_classes": 10, "root": str(imagenet)}
    plan = Plan.load(TINY, {"results": str(tmp_path), "datasets": datasets})
    spec = plan.encoder("image")
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
    assert "NOT IN THE TOTAL: 3 trainings of unknown length" in said and "pass --items imagenet=N" in said


def test_a_split_smaller_than_a_batch_is_named():
    with pytest.raises(InputError, match="--items text"):
        parse_items(["text=many"])
    assert main(["plan", "curves", "--config", str(TINY), "--items", "imagenet=3"]) == 2
    assert main(["plan", "curves", "--config", str(TINY), "--items", "imagnet=300"]) == 2
