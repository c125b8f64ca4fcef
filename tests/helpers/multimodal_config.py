"""A config of joint trainings that take seconds: AV-MNIST with 40 samples, tiny encoders, two epochs."""

from pathlib import Path
from typing import Any

import yaml

from m2pt import catalog

METHODS = {
    "joint": {},
    "agm": {"alpha": 1.5},
    "ogm": {"alpha": 0.8},
    "ogm_ge": {"alpha": 0.8},
    "mslr": {"coefficients": {"audio": 1.2, "image": 0.8}, "memory": 1},
    "mses": {"patience": 1},
    "gradient_blending": {"super_epoch": 1},
}

MODALITIES = {
    "image": {"input": {"image_size": 28}, "tokenizer": {"patch_size": 7}},
    "audio": {"input": {"frames": 16, "mel_bins": 16}, "tokenizer": {"patch_size": 8, "stride": 5}},
    "video": {"input": {"frames": 2, "stride": 1, "image_size": 8}, "tokenizer": {"patch_size": 4}},
    "text": {"input": {"length": 8}},
}


def write_config(
    folder: Path, rows: dict[str, dict[str, Any]] | None = None, *, layout: str = "avmnist", **recipe: Any
) -> Path:
    """Write config, table and recipe; `rows` are the `balancing` of each row, by default one per method.

    Keys of `recipe` replace those of the recipe. A `layout` other than AV-MNIST needs its own input, model
    and methods.
    """
    folder.mkdir(exist_ok=True)
    rows = {name: {"method": name} for name in METHODS} if rows is None else rows
    settings: dict[str, Any] = {
        "training": {"epochs": 2, "batch_size": 8, "optimizer": "sgd", "lr": 0.05, "log_every": 1},
        "input": {"image_size": 28, "audio_size": 16, "held_out": 0.5},
        "model": {
            "encoders": {name: {"kind": "resnet18", "width": 4} for name in ("audio", "image")},
            "fusion": {"kind": "concat"},
        },
        "head_clip": 1.0,
        "methods": METHODS,
        **recipe,
    }
    column = {"task": "multimodal_classification", "dataset": layout, "fusion": "late", "group": "g"}
    columns = [{"name": "all", "title": "all", "metric": "top1", **column}]
    if "image" in catalog.layout(layout).modalities:
        columns.append({"name": "image", "title": "image", "metric": "top1_image", **column})
    names = [each["name"] for each in columns]
    table = {
        "title": "t",
        "caption": "c",
        "columns": columns,
        "rows": [
            {
                "method": name,
                "setting": "scratch",
                "columns": ["all"] if "modalities" in balancing else names,
                "run": {"target_init": "scratch", "balancing": balancing},
            }
            for name, balancing in rows.items()
        ],
    }
    classes = catalog.layout(layout).num_classes
    sizes = {"train": 40, "test": 20, "side": 16} if layout == "avmnist" else {}
    config = {
        "results": str(folder / "results"),
        "checkpoints": str(folder / "checkpoints"),
        "device": "cpu",
        "backbone": {"dim": 16, "depth": 1, "num_heads": 2},
        "modalities": MODALITIES,
        "datasets": {
            layout: {"layout": layout, "num_classes": classes, "miniature": {"seed": 0, "sizes": sizes}}
        },
        "encoders": {},
        "finetune": {},
        "multimodal": {layout: {"fusions": {"late": str(folder / "recipe.yaml")}}},
        "tables": [str(folder / "table.yaml")],
    }
    for name, content in (("recipe", settings), ("table", table), ("config", config)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "config.yaml"
