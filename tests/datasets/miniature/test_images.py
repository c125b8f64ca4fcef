"""The miniature ImageNet, COCO and ADE20K: reproducible to the byte, and no source item in two splits."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from rebuilt import contents

from m2pt.datasets.layouts import miniature_module
from m2pt.datasets.manifest import build_manifest
from m2pt.datasets.miniature.pictures import load_digits
from m2pt.datasets.miniature.scenes import COLUMNS
from m2pt.datasets.miniature.staging import RECORD, staged, write_record
from m2pt.errors import InputError

LAYOUTS = ("imagenet", "coco", "ade20k")
SIZES = {"train": 20, "val": 10}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rebuild_is_identical_and_another_seed_is_not(layout: str, tmp_path: Path) -> None:
    build = miniature_module(layout).build
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        build(tmp_path / name, seed=seed, **SIZES)
    first, second, other = (contents(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    assert first != other
    manifests = [build_manifest(tmp_path / name, layout, full=True) for name in ("first", "second", "other")]
    assert manifests[0] == manifests[1]
    assert manifests[0]["content_sha256"] != manifests[2]["content_sha256"]
    assert manifests[0]["items"] == SIZES


@pytest.mark.parametrize("layout", LAYOUTS)
def test_train_and_val_share_no_source(layout: str, request: pytest.FixtureRequest) -> None:
    sources = json.loads((request.getfixturevalue(layout) / RECORD).read_text())["sources"]
    assert sources["train"] and sources["val"]
    assert not set(sources["train"]) & set(sources["val"])


def test_digit_splits_share_no_image_and_have_every_class_equally_often() -> None:
    splits = {split: load_digits(split) for split in ("train", "val")}
    hashes = {
        split: {hashlib.sha256(image.tobytes()).digest() for image in digits.images}
        for split, digits in splits.items()
    }
    assert not hashes["train"] & hashes["val"]
    assert np.bincount(splits["train"].labels).tolist() == [400] * 10
    assert np.bincount(splits["val"].labels).tolist() == [100] * 10


def test_dealt_digits_come_by_turns() -> None:
    digits = load_digits("val")
    dealt = digits.dealt(np.random.default_rng(0), 1000)
    assert sorted(dealt) == list(range(1000))
    assert all(sorted(digits.labels[turn]) == list(range(10)) for turn in dealt.reshape(-1, 10))


def test_splits_show_different_columns_of_the_photographs() -> None:
    columns_of = {split: set(range(640)[columns]) for split, columns in COLUMNS.items()}
    assert not columns_of["train"] & columns_of["val"]


def test_a_failed_build_leaves_what_was_there(tmp_path: Path) -> None:
    root = tmp_path / "miniature"
    with staged(root) as folder:
        write_record(folder, seed=0, sizes={}, sources={"train": ["a"], "val": ["b"]})
    before = contents(tmp_path)
    with pytest.raises(ZeroDivisionError), staged(root) as folder:
        (folder / "half").write_text("written")
        raise ZeroDivisionError
    assert contents(tmp_path) == before
    with staged(root) as folder:
        (folder / "other").write_text("written")
    assert contents(tmp_path) == {"miniature/other": b"written"}


def test_somebodys_data_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(InputError, match="not a miniature"), staged(tmp_path):
        pass
    assert contents(tmp_path) == {"photo.jpg": b"precious"}


def test_a_shared_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="digit 7 is in both train and val"):
        write_record(tmp_path, seed=0, sizes={}, sources={"train": ["digit 7"], "val": ["digit 7"]})
