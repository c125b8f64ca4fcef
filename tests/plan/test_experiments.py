"""Cells to experiments and recipes, for the kinds of run of the catalog."""

from pathlib import Path

import pytest

from m2pt.config.config import Config
from m2pt.config.experiment import PathwaySpec
from m2pt.config.strict import validate
from m2pt.config.tables import Column, Factors
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.plan.experiments import (
    finetune_experiments,
    finetune_recipe,
    transfer_experiments,
    transfer_recipe,
)

TINY = Path("tests/tiny/config.yaml")
HEADINGS = {"name": "c", "group": "g", "title": "t"}
PARTS = Column(
    **HEADINGS, metric="miou", task="point_segmentation", dataset="partnet", mode="tune", transfer_from=None
)
DETECTION = {**HEADINGS, "metric": "ap_box", "task": "detection", "dataset": "coco"}
FACTORS = Factors(target_init="image", pathway=PathwaySpec(auxiliaries=("audio",)))


@pytest.fixture(scope="module")
def config():
    return validate(Config, read_yaml(TINY), str(TINY))


def test_each_subset_is_an_experiment(config):
    found = list(finetune_experiments(config, Factors(target_init="pointcloud"), PARTS))
    assert [each.subset for each in found] == ["Chair-1", "Lamp-1"]
    assert finetune_recipe(config, found[0], "transformer") == "tests/tiny/recipes/partnet_tune.yaml"


def test_a_target_may_start_from_another_encoder_than_the_table_names(config):
    replaced = config.model_copy(update={"target_encoders": {"pointcloud": "random"}})
    found = next(finetune_experiments(replaced, Factors(target_init="pointcloud"), PARTS))
    assert found.target_init == "random"


def test_a_recipe_that_is_missing_is_named(config):
    scratch = next(finetune_experiments(config, Factors(target_init="scratch"), PARTS))
    with pytest.raises(InputError, match=r"the config has no recipe finetune\.partnet\.scratch_tune"):
        finetune_recipe(config, scratch, "transformer")
    (fixed,) = finetune_experiments(
        config,
        Factors(target_init="image_convnext"),
        Column(**HEADINGS, metric="top1", task="classification", dataset="imagenet", mode="fix"),
    )
    with pytest.raises(InputError, match="a ConvNeXt can only be finetuned, with mode: tune"):
        finetune_recipe(config, fixed, "convnext")


def test_a_transfer_starts_from_the_finetuned_model_or_from_the_encoder(config):
    column = Column(**DETECTION, transfer_from="imagenet")
    (finetuned,) = transfer_experiments(config, FACTORS, column)
    assert finetuned.pathway is None and finetuned.mode == "fix"
    assert finetuned.transfer_from.task == "classification"
    assert finetuned.transfer_from.pathway == FACTORS.pathway
    pretrained = FACTORS.model_copy(update={"transfer_from": "pretrained"})
    (experiment,) = transfer_experiments(config, pretrained, column)
    assert experiment.pathway == FACTORS.pathway and experiment.transfer_from is None
    assert transfer_recipe(config, experiment, "transformer") == "tests/tiny/recipes/coco.yaml"
    with pytest.raises(InputError, match="a ConvNeXt can only be finetuned"):
        transfer_recipe(config, experiment, "convnext")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transfer_from": "text"}, "transfer_from: text has no labels for a classifier"),
        ({"dataset": "kinetics", "transfer_from": "imagenet"}, "the config has no transfer.kinetics section"),
    ],
)
def test_what_a_transfer_lacks_is_named(config, change, words):
    with pytest.raises(InputError, match=words):
        list(transfer_experiments(config, FACTORS, Column(**DETECTION | change)))
