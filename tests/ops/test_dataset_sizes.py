"""Sizes of datasets, published or counted, and the steps of a training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from multimodal_config import write_config
from tiny_trainings import TINY

from m2pt import catalog
from m2pt.commands import main
from m2pt.errors import InputError
from m2pt.ops.dataset_sizes import Items, parse_items, training_items
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


@pytest.mark.parametrize(("share", "items"), [(0.5, 20), (0.2, 30)])
def test_the_share_that_the_recipe_holds_out_is_not_trained_on(tmp_path, share, items):
    """The miniature has 40 samples, 4 of each class, so that a share of 0.2 holds out one of each."""
    config = write_config(
        tmp_path,
        {"x": {"method": "joint"}},
        input={"image_size": 28, "audio_size": 16, "held_out": share},
    )
    plan = Plan.load(config)
    (run,) = plan.runs.values()
    estimated = 40 - round(40 * share)  # by the list as a whole, before there is one
    assert training_items(plan, run.spec, {}) == Items(estimated, "the miniature to be built")
    assert main(["data", "build", "avmnist", "--config", str(config)]) == 0
    assert plan.manifest("avmnist").exists()
    assert training_items(plan, run.spec, {}) == Items(items, str(plan.root("avmnist")))


@pytest.mark.parametrize(("share", "items"), [(0.1, 6_028), (0.5, 3_349)])
def test_the_published_size_of_a_list_is_without_the_share_that_is_held_out(share, items):
    plan = Plan.load(PAPER)
    spec = next(run.spec for run in plan.runs.values() if run.spec.dataset.name == "cremad")
    recipe = spec.recipe.model_copy(update={"input": replace(spec.recipe.input, held_out=share)})
    assert training_items(plan, replace(spec, recipe=recipe), {}).count == items


def test_a_share_that_the_input_lacks_is_named(monkeypatch):
    plan = Plan.load(PAPER)
    spec = next(run.spec for run in plan.runs.values() if run.spec.dataset.name == "cremad")
    entry = replace(catalog.LAYOUTS["cremad"], held_out="left_out")
    monkeypatch.setitem(catalog.LAYOUTS, "cremad", entry)
    with pytest.raises(InputError, match="layout cremad: held_out: the input has no 'left_out'; it has fra"):
        training_items(plan, spec, {})


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
