"""Recipes: what they are composed of, and those of part segmentation against points and blocks."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from config_documents import changed, refused

from m2pt.config.architecture import Backbone
from m2pt.config.recipes import masked_recipe, supervised_recipe, task_recipe
from m2pt.config.strict import validate
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.models.part_segmentation import build_part_segmenter

PartRecipe = task_recipe("part_segmentation", "shapenetpart")
PointRecipe = task_recipe("point_segmentation", "partnet")
RECIPES = [
    *Path("config/recipes").glob("*/shapenetpart*.yaml"),
    *Path("config/recipes").glob("*/partnet*.yaml"),
]


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_recipes_build_a_net(path: Path) -> None:
    recipe = validate(
        PartRecipe if "part_" in path.name else PointRecipe, read_yaml(path), str(path)
    ).model_dump()
    paper = path.parent.name == "paper"
    body = {"dim": 768 if paper else 96, "depth": 12 if paper else 6, "num_heads": 6}
    with torch.device("meta"):
        model = build_part_segmenter(
            "pointcloud",
            input=recipe["input"],
            tokenizer={**recipe["tokenizer"], "hidden": 128},
            backbone=body,
            num_classes=50,
            num_categories=16 if "shapenetpart" in path.name else 0,
            **recipe["model"],
        )
    assert model.taps == [body["depth"] * third // 3 - 1 for third in (1, 2, 3)]
    assert len(RECIPES) == 6


def test_recipes_are_checked_against_points_and_blocks() -> None:
    values = read_yaml(Path("config/recipes/mini/partnet_tune.yaml"))
    recipe = validate(PointRecipe, values, "x.yaml")
    recipe.check_fit(Backbone(dim=96, depth=6, num_heads=6), None)
    with pytest.raises(ValueError, match=r"model\.taps = \[1, 3, 5\]: .* the last 11"):
        recipe.check_fit(Backbone(dim=96, depth=12, num_heads=6), None)
    with pytest.raises(InputError, match=r"tokenizer\.groups 16 exceeds input\.points 8"):
        validate(PointRecipe, {**values, "input": {"points": 8}}, "x.yaml")
    with pytest.raises(InputError, match="label_dim: unknown key"):
        validate(PointRecipe, {**values, "model": {**values["model"], "label_dim": 4}}, "x.yaml")


@pytest.mark.parametrize(
    ("recipe", "keys"),
    [
        (task_recipe("classification", "imagenet"), "training model mix augmentation"),
        (task_recipe("classification", "kinetics"), "training model mix augmentation evaluation"),
        (task_recipe("multilabel_classification", "audioset"), "training model augmentation"),
        (task_recipe("detection", "coco"), "training input model drop_path augmentation"),
        (PartRecipe, "training input tokenizer model augmentation"),
        (masked_recipe("text"), "training keep_epochs mask_ratio drop_path augmentation"),
        (masked_recipe("imagenet"), "training keep_epochs mask_ratio decoder drop_path augmentation"),
        (supervised_recipe("kinetics"), "training keep_epochs model mix augmentation"),
        (supervised_recipe("audioset"), "training keep_epochs model augmentation"),
    ],
)
def test_a_recipe_is_composed_of_task_and_layout(recipe, keys) -> None:
    """In this order: weight files hold their spec as text, so that another order would change their bytes."""
    assert list(recipe.model_fields) == keys.split()


@pytest.mark.parametrize(
    "recipe", [task_recipe("classification", "shapenet55"), supervised_recipe("shapenet55")]
)
def test_point_clouds_are_not_mixed(recipe) -> None:
    training = {"epochs": 1, "batch_size": 2, "lr": 1.0}
    assert validate(recipe, {"training": training, "mix": {"smoothing": 0.1}}, "x.yaml").mix.smoothing == 0.1
    with pytest.raises(InputError, match=r"x\.yaml: mix = .*mixup and cutmix mix pictures"):
        validate(recipe, {"training": training, "mix": {"mixup": 0.5}}, "x.yaml")


def test_pretraining_has_an_augmentation_of_its_own() -> None:
    finetuning, pretraining = task_recipe("classification", "kinetics"), masked_recipe("kinetics")
    kinds = [recipe.model_fields["augmentation"].annotation for recipe in (finetuning, pretraining)]
    assert [kind.__name__ for kind in kinds] == ["ClipAugmentation", "ClipCropAugmentation"]


def test_a_recipe_says_how_samples_are_repeated_mixed_and_viewed() -> None:
    path = Path("tests/tiny/recipes/kinetics_tune.yaml")
    values = read_yaml(path) | {"mix": {"mixup": 0.8}, "augmentation": {"samples": 2}}
    video = validate(task_recipe("classification", "kinetics"), values, str(path))
    assert (video.num_views, video.samples_per_item, video.mixes_pairs) == (6, 2, True)
    path = next(path for path in RECIPES if "partnet" in path.name)
    points = validate(PointRecipe, read_yaml(path), str(path))
    assert (points.num_views, points.samples_per_item, points.mixes_pairs) == (1, 1, False)


CLASSIFICATION = task_recipe("classification", "imagenet")


def test_a_misspelled_training_setting_is_named(tmp_path):
    recipe = read_yaml(Path("tests/tiny/recipes/imagenet_tune.yaml"))
    recipe["training"]["weight_decy"] = 0.1
    assert "training.weight_decy: unknown key; did you mean 'weight_decay'?" in refused(
        CLASSIFICATION, recipe
    )


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("training.epochs", [0, -1, 1.0, True, "1", 10**9, NAN]),
        ("training.batch_size", [0, -8, 8.0, True, 10**9, None]),
        ("training.accumulation", [0, 10**9]),
        ("training.lr", [NAN, INF, -INF, 0, -1e-3, True, "x", 1e6, None]),
        ("training.scale_lr", [NAN, 0]),
        ("training.betas", [[0.9], [0.9, 1.0], [NAN, 0.9], [0.9, True], 0.9]),
        ("training.weight_decay", [-1, NAN, INF]),
        ("training.layer_decay", [0, 1.1, NAN]),
        ("training.warmup_epochs", [-1, NAN, 10, 10**9]),
        ("training.clip_grad", [0, INF]),
        ("training.ema", [0, 1, NAN, "0.9x"]),
        ("training.num_workers", [-1, 10**6, 1.0]),
        ("training.log_every", [0, True]),
        ("training.checkpoint_every", [0, 1.5]),
        ("training.optimizer_args", [{"eps": NAN}, {"eps": "x"}, [1]]),
        ("mix.mixup", [-1, NAN, True, 1e9]),
        ("mix.smoothing", [-0.1, 1.0, NAN]),
        ("mix.switch_prob", [1.1, -0.1]),
        ("model.drop_path", [1.0, -1, NAN]),
        ("augmentation.scale", [[1, 0.5], [0, 1], [0.5, 2], [NAN, 1], [0.5], "0.5"]),
        ("augmentation.ratio", [[2, 1], [0, 1], [1, INF]]),
        ("augmentation.hflip", [1.5, -0.5, True]),
        ("augmentation.auto_augment", ["", "a\0b", "x" * 1000, 1]),
    ],
)
def test_nonsense_in_a_recipe_is_refused_with_its_key(path, values):
    recipe = read_yaml(Path("tests/tiny/recipes/imagenet_tune.yaml")) | {"model": {}, "augmentation": {}}
    for value in values:
        message = refused(CLASSIFICATION, changed(recipe, path, value))
        assert path.partition(".")[0] in message and len(message) < 2000, (path, value, message)


@pytest.mark.parametrize(
    ("path", "recipe_class"),
    [
        ("tests/tiny/recipes/pretrain_image.yaml", masked_recipe("imagenet")),
        ("config/recipes/mini/avmnist_late.yaml", task_recipe("multimodal_classification", "avmnist")),
    ],
)
def test_only_what_has_pathways_is_averaged(path, recipe_class):
    recipe = changed(read_yaml(Path(path)), "training.ema", 0.9)
    assert "training.ema: finetunings and transfers have it" in refused(recipe_class, recipe)


def test_joint_trainings_are_not_sharded():
    recipe = read_yaml(Path("config/recipes/mini/avmnist_late.yaml"))
    said = refused(
        task_recipe("multimodal_classification", "avmnist"), changed(recipe, "training.shard", True)
    )
    assert "training.shard: joint trainings are not sharded" in said


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ema": 0.9}, "ema"),
        ({"compile": True}, "compile"),
        ({"channels_last": True}, "channels_last"),
        ({"precision": "fp16"}, "precision: fp16"),
        ({"precision": "fp16", "ema": 0.9}, "ema and precision: fp16"),
    ],
)
def test_what_needs_whole_weights_is_not_sharded(changes, named):
    recipe = read_yaml(Path("tests/tiny/recipes/imagenet_tune.yaml"))
    recipe["training"] |= {"shard": True, "precision": "bf16"}
    recipe_class = task_recipe("classification", "imagenet")
    recipe_class(**recipe)
    recipe["training"] |= changes
    assert f"shard: not together with {named}, which need weights whole" in refused(recipe_class, recipe)


def test_a_number_that_yaml_reads_as_a_string_is_hashed_as_a_number():
    decoder = "{dim: 8, depth: 1, num_heads: 1}"
    text = f"{{training: {{epochs: 1, batch_size: 8, lr: 1e-3}}, mask_ratio: 0.75, decoder: {decoder}}}"
    assert isinstance(yaml.safe_load(text)["training"]["lr"], str)
    recipe = validate(masked_recipe("imagenet"), yaml.safe_load(text), "recipe")
    assert recipe.training.lr == 0.001


def test_what_is_ours_in_a_miniature_s_recipe_has_a_reason():
    paths = sorted(Path("config/recipes/mini").glob("*.yaml"))
    bare = [
        f"{path}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"# ours\W*$", line) or re.search(r"^  (epochs|batch_size|lr|scale_lr): [^#]*$", line)
    ]
    assert len(paths) > 15 and not bare
