"""Folders of results, checkpoints and datasets."""

from pathlib import Path

import pytest
from config_documents import refused_config


@pytest.mark.parametrize(
    "folder",
    [
        "",
        ".",
        "..",
        "/",
        "./",
        "results/..",
        "a\0b",
        pytest.param(str(Path.home()), id="home"),
        pytest.param(str(Path.cwd()), id="here"),
        pytest.param("x" * 300, id="long name"),
        pytest.param("x/" * 600, id="long path"),
    ],
)
def test_a_folder_that_is_or_holds_anything_else_is_refused(config, folder):
    for key in ("results", "checkpoints"):
        refused_config(config | {key: folder})


def test_results_checkpoints_and_datasets_lie_apart(config, tmp_path):
    folder = str(tmp_path / "made")
    assert "results must not be inside checkpoints" in refused_config(
        config | {"results": folder, "checkpoints": folder}
    )
    within = {"results": f"{folder}/x", "checkpoints": folder}
    assert "results must not be inside checkpoints" in refused_config(config | within)
    (tmp_path / "link").symlink_to(tmp_path / "made")
    linked = {"results": str(tmp_path / "link" / "x"), "checkpoints": folder}
    assert "results must not be inside checkpoints" in refused_config(config | linked)
    datasets = config["datasets"] | {"imagenet": {"layout": "imagenet", "num_classes": 10, "root": folder}}
    message = refused_config(config | {"results": folder, "datasets": datasets})
    assert "results is the root of dataset imagenet" in message
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused_config(config | {"results": str(tmp_path / "loop")})


@pytest.mark.parametrize("name", ["results", "checkpoints"])
@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_folder_is_not_made_where_a_file_is(config, tmp_path, name, below):
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'} is not a folder" in refused_config(
        config | {name: str(tmp_path / "file" / below)}
    )
