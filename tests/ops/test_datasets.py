"""Building a miniature, checking it, its manifest."""

import json
import shutil
from pathlib import Path

import pytest

from m2pt.datasets.manifest import file_sha256
from m2pt.errors import InputError
from m2pt.ops.datasets import build_miniature, check_dataset, write_manifest


def test_all_faults_are_one_error(imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "imagenet"
    shutil.copytree(imagenet, root)
    check_dataset("imagenet", root, num_classes=10)
    assert "no problems" in capsys.readouterr().out
    shutil.rmtree(root / "val")
    words = r"2 problems:\n.*val is missing.*\n.*10 class folders, not num_classes = 1000"
    with pytest.raises(InputError, match=words):
        check_dataset("imagenet", root)
    with pytest.raises(InputError, match="no dataset layout 'cifar'; choose one of ade20k"):
        check_dataset("cifar", root)


def test_build_writes_dataset_and_manifest(tmp_path: Path) -> None:
    root, path = tmp_path / "digits", tmp_path / "digits.manifest.json"
    build_miniature("imagenet", root, seed=1, sizes={"train": 10, "val": 10}, manifest_path=path)
    manifest = json.loads(path.read_text())
    assert manifest["items"] == {"train": 10, "val": 10}
    assert manifest["files"] == 20
    assert manifest["bytes"] == sum(file.stat().st_size for file in root.rglob("*.JPEG"))
    write_manifest("imagenet", root, manifest_path=path, full=False)
    assert {**json.loads(path.read_text()), "content_sha256": manifest["content_sha256"]} == manifest
    changed = next(root.rglob("*.JPEG"))
    before = file_sha256(changed)
    changed.write_bytes(changed.read_bytes()[::-1])
    write_manifest("imagenet", root, manifest_path=path, full=True)
    again = json.loads(path.read_text())
    assert file_sha256(changed) != before
    assert again["listing_sha256"] == manifest["listing_sha256"]
    assert again["content_sha256"] != manifest["content_sha256"]


def test_a_misspelled_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no size 'trian'; its sizes are train, val"):
        build_miniature(
            "coco", tmp_path / "coco", seed=0, sizes={"trian": 3}, manifest_path=tmp_path / "m.json"
        )
    assert list(tmp_path.iterdir()) == []
