"""What a stranger's entries are tried with: a config of one cell, and the commands that make it."""

from pathlib import Path

import pytest
import yaml

from m2pt.formats.documents import read_yaml

TINY = read_yaml(Path("tests/tiny/config.yaml"))
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
