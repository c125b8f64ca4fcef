"""A config of joint trainings that take seconds: AV-MNIST with 40 samples, tiny encoders, two epochs."""

from pathlib import Path
from typing import Any

import yaml

METHODS = {
    "joint": {},
    "agm": {"alpha": 1.5},
    "ogm": {"alpha": 0.8},
    "ogm_ge": {"alpha": 0.8},
    "mslr": {"coefficients": {"audio": 1.2, "image": 0.8}, "memory": 1},
    "mses": {"patience": 1},
    "gradient_blending": {"super_epoch": 1},
}


def write_config(folder: Path, rows: dict[str, dict[str, Any]] | None = None, **recipe: Any) -> Path:
    """Write config, table and recipe; `rows` are the `balancing` of each row, by default one per method.

    Keys of `recipe` replace those of the recipe.
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
    column = {"task": "multimodal_classification", "dataset": "avmnist", "fusion": "late", "group": "g"}
    columns = [
        {"name": "all", "title": "all", "metric": "top1", **column},
        {"name": "image", "title": "image", "metric": "top1_image", **column},
    ]
    table = {
        "title": "t",
        "caption": "c",
        "columns": columns,
        "rows": [
            {
                "method": name,
                "setting": "scratch",
                "columns": ["all"] if "modalities" in balancing else ["all", "image"],
                "run": {"target_init": "scratch", "balancing": balancing},
            }
            for name, balancing in rows.items()
        ],
    }
    sizes = {"train": 40, "test": 20, "side": 16}
    config = {
        "results": str(folder / "results"),
        "checkpoints": str(folder / "checkpoints"),
        "device": "cpu",
        "backbone": {"dim": 16, "depth": 1, "num_heads": 2},
        "modalities": {"image": {"input": {"image_size": 28}, "tokenizer": {"patch_size": 7}}},
        "datasets": {
            "avmnist": {"layout": "avmnist", "num_classes": 10, "miniature": {"seed": 0, "sizes": sizes}}
        },
        "encoders": {},
        "finetune": {},
        "multimodal": {"avmnist": {"fusions": {"late": str(folder / "recipe.yaml")}}},
        "tables": [str(folder / "table.yaml")],
    }
    for name, content in (("recipe", settings), ("table", table), ("config", config)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "config.yaml"
