"""The shipped recipes of part segmentation: each builds its net, and is checked against points and blocks."""

from pathlib import Path

import pytest
import torch

from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.models.part_segmentation import build_part_segmenter
from m2pt.schema.base import validate
from m2pt.schema.pointcloud_recipes import PartSegmentation as PartRecipe
from m2pt.schema.pointcloud_recipes import PointSegmentation as PointRecipe
from m2pt.schema.pointcloud_recipes import check_taps

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
    check_taps("x.yaml", recipe, 6)
    with pytest.raises(InputError, match=r"x\.yaml: model\.taps = \[1, 3, 5\]: .* the last one 11"):
        check_taps("x.yaml", recipe, 12)
    with pytest.raises(InputError, match=r"tokenizer\.groups 16 exceeds input\.points 8"):
        validate(PointRecipe, {**values, "input": {"points": 8}}, "x.yaml")
    with pytest.raises(InputError, match="label_dim: unknown key"):
        validate(PointRecipe, {**values, "model": {**values["model"], "label_dim": 4}}, "x.yaml")
