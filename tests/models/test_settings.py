"""Model settings: importable without torch, validated when a recipe is read."""

import subprocess
import sys
from typing import Any

import pytest

from m2pt.config.recipes import masked_recipe, task_recipe
from m2pt.config.strict import Strict, validate
from m2pt.errors import InputError
from m2pt.models import settings

Finetuning = task_recipe("classification", "imagenet")
MultilabelFinetuning = task_recipe("multilabel_classification", "audioset")
PartSegmentation = task_recipe("part_segmentation", "shapenetpart")
TRAINING = {"epochs": 1, "batch_size": 2, "lr": 1.0}
DECODER = {"dim": 16, "depth": 1, "num_heads": 2}
SEGMENTATION = {"training": TRAINING, "input": {"points": 32}, "tokenizer": {"groups": 4, "group_size": 4}}
SEGMENTER = {"taps": [0], "propagation_dims": [8], "hidden_dims": [8]}


def test_reading_settings_imports_no_torch() -> None:
    script = "import sys, m2pt.models.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_recipe_without_model_has_the_defaults() -> None:
    recipe = validate(MultilabelFinetuning, {"training": TRAINING}, "r.yaml")
    assert recipe.model == settings.AudioClassifierSettings()
    assert recipe.model_dump()["model"] == {
        "pool": "avg",
        "head": "linear",
        "drop_path": 0.0,
        "token_drop": {"time": 0.0, "frequency": 0.0},
    }


@pytest.mark.parametrize(
    ("model", "changed", "message"),
    [
        (Finetuning, {"model": {"pool": "max"}}, r"model\.pool = 'max': must be 'avg' or 'token'"),
        (
            Finetuning,
            {"model": {"drop_paths": 0.1}},
            r"model\.drop_paths: unknown key; did you mean 'drop_path'",
        ),
        (Finetuning, {"model": {"drop_path": True}}, r"model\.drop_path = True: must be a number"),
        (Finetuning, {"model": 3}, r"model = 3: must be a mapping"),
        (Finetuning, {"model": {"token_drop": {}}}, r"model\.token_drop: unknown key"),
        (
            MultilabelFinetuning,
            {"model": {"token_drop": {"time": 1}}},
            r"model\.token_drop\.time = 1: must be < 1",
        ),
        (
            MultilabelFinetuning,
            {"model": {"token_drop": {"tim": 0}}},
            r"model\.token_drop\.tim: .*did you mean 'time'",
        ),
    ],
)
def test_faults_name_key_and_value(model: type[Strict], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^r.yaml: {message}"):
        validate(model, {"training": TRAINING, **changed}, "r.yaml")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_heads": 3}, r"decoder = .*dim 16 is not a multiple of num_heads 3"),
        ({"depth": 0}, r"decoder\.depth = 0: must be >= 1"),
        ({"kind": "local"}, r"decoder\.kind = 'local': must be 'global' or 'windowed'"),
    ],
)
def test_a_decoder_is_checked(changed: dict[str, Any], message: str) -> None:
    recipe = {"training": TRAINING, "mask_ratio": 0.75, "decoder": {**DECODER, **changed}}
    with pytest.raises(InputError, match=message):
        validate(masked_recipe("imagenet"), recipe, "r.yaml")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"taps": []}, r"model\.taps = .*at least 1 item"),
        ({"hidden_dims": [0]}, r"model\.hidden_dims\.0 = 0: must be >= 1"),
        ({"label_dims": 8}, r"model\.label_dims: unknown key; did you mean 'label_dim'"),
    ],
)
def test_a_segmenter_is_checked(changed: dict[str, Any], message: str) -> None:
    recipe = {**SEGMENTATION, "model": {**SEGMENTER, **changed}}
    with pytest.raises(InputError, match=message):
        validate(PartSegmentation, recipe, "r.yaml")
