"""COCO annotation files: whatever is in one is refused by name, or read, and perfect detections score 100."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_documents import (
    HEIGHT,
    MADE_RIGHT,
    REFUSED,
    WIDTH,
    Document,
    category_ids,
    corners,
    document,
    every,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from picture_layouts import verdict
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from m2pt.datasets import coco
from m2pt.datasets.coco_records import _FileReader, decode_mask, read_records
from m2pt.errors import InputError
from m2pt.tasks.detection import Detection, average_precision, ground_truth, quiet


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("records") / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir()
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (WIDTH, HEIGHT), (9, 99, 199)).save(root / f"{split}2017" / name)
        coco.annotation_file(root, split).write_text(json.dumps(document()))
    return root


def judged(root: Path, value: Document, split: str = "val") -> list[str]:
    """Return the problems of a dataset with this annotation file; the quick check finds the same."""
    path = coco.annotation_file(root, split)
    path.write_text(json.dumps(value))
    try:
        problems = verdict("coco", root, 2)
        assert coco.check(root, num_classes=2, full=False) == problems
    finally:
        path.write_text(json.dumps(document()))
    return problems


@pytest.mark.parametrize("name", MADE_RIGHT)
def test_what_has_one_right_reading_scores_100(name: str, root: Path) -> None:
    value = document()
    MADE_RIGHT[name](value)
    assert judged(root, value) == []


@pytest.mark.parametrize("numbers", [(0, 1), (-1, -2), (2**53 + 1, 2**53)])
def test_category_ids_are_any_integers(numbers: tuple[int, int], root: Path) -> None:
    value = document()
    category_ids(*numbers)(value)
    try:
        coco.annotation_file(root, "train").write_text(json.dumps(value))
        assert judged(root, value) == []
    finally:
        coco.annotation_file(root, "train").write_text(json.dumps(document()))


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_none_is_refused_with_file_and_entry(name: str, root: Path) -> None:
    change, message = REFUSED[name]
    value = document()
    change(value)
    problems = "\n".join(judged(root, value))
    assert "val2017" in problems
    assert re.search(message, problems), problems


def test_a_reader_names_the_first_problem(root: Path) -> None:
    value = document()
    every(corners)(value)
    path = coco.annotation_file(root, "val")
    path.write_text(json.dumps(value))
    try:
        with pytest.raises(InputError, match=r"annotations\[0\] \(id 1\) has the bbox .* 3 more"):
            coco.Reader(root, "val", num_classes=2, image_size=16)
    finally:
        path.write_text(json.dumps(document()))


def test_training_passes_over_what_has_no_area(root: Path) -> None:
    value = document()
    # annotation 918 of COCO's train2017, moved into this image
    flat = {
        "segmentation": [[4.65, 8.33, 4.65, 8.33, 5.68, 8.33, 5.68, 8.33]],
        "bbox": [4.65, 8.33, 1.03, 0.0],
    }
    value["annotations"].append({**value["annotations"][0], "id": 918, "area": 0.0, **flat})
    assert judged(root, value, "train") == []


def test_sides_are_told_from_corners_only_where_they_differ(root: Path) -> None:
    value = document()
    whole = [[0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT]]
    value["annotations"][0].update(bbox=[0, 0, WIDTH, HEIGHT], segmentation=whole)
    assert judged(root, value) == []


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-50, 50),
    st.sampled_from([2**31, 2**53, 2**64, 10**30, -(2**63)]),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-9, 99) | st.floats() | st.text(max_size=2), max_size=8),
    st.lists(st.lists(st.floats(-9, 40) | st.integers(0, 30), min_size=4, max_size=9), max_size=3),
    st.lists(st.integers(0, 300), min_size=1, max_size=4).map(
        lambda runs: {"size": [20, 30], "counts": runs}
    ),
    st.text("0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmno\\", max_size=12).map(
        lambda code: {"size": [20, 30], "counts": code}
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, child in inner for place in [(*path, key), *places(child, (*path, key))]]


@st.composite
def damaged(draw: st.DrawFn) -> Document:
    """Return the document with one to three values removed, repeated or replaced."""
    value = document()
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(value)))
        holder = value
        for key in path:
            holder = holder[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "repeat"]))
        if action == "replace":
            holder[last] = draw(VALUES)
        elif action == "remove":
            del holder[last]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        if not isinstance(value, dict) or not places(value):
            break
    return value


@given(value=damaged(), split=st.sampled_from(["val", "train"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_value_is_refused_or_scores_100(value: Document, split: str, root: Path) -> None:
    judged(root, value, split)


@given(content=st.binary(max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"instances\.json"):
        read_records(path, evaluated=True)


@given(runs=st.lists(st.integers(0, 9), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_run_lengths_are_those_of_numpy(runs: list[int]) -> None:
    height, width = 1, sum(runs)
    flat = np.repeat(np.arange(len(runs)) % 2, runs)
    value = document()
    value["images"] = [{"id": 9, "file_name": "a.jpg", "height": 1, "width": width}]
    packed = rle.encode(np.asfortranarray(flat[None], np.uint8))["counts"].decode() if width else ""
    value["annotations"] = [
        {
            "image_id": 9,
            "category_id": 7,
            "bbox": [0, 0, width, 1],
            "iscrowd": 1,
            "segmentation": {"size": [height, width], "counts": counts},
        }
        for counts in (runs, packed)
    ]
    reader = _FileReader(evaluated=False)
    for entry in value["categories"]:
        reader.category(entry)
    if not 0 < width <= 100:
        return
    reader.image(value["images"][0])
    for entry in value["annotations"]:
        reader.annotation(entry)
    for instance in reader.pictures[9].instances:  # type: ignore[union-attr]
        assert decode_mask(instance.segmentation, height, width)[0].tolist() == flat.tolist()


def test_a_sound_file_scores_as_pycocotools_scores_it(request: pytest.FixtureRequest) -> None:
    reader = coco.Reader(request.getfixturevalue("coco"), "val", num_classes=10, image_size=96)
    with quiet():
        truth = COCO(str(reader.annotation_file))
    rng = np.random.default_rng(0)
    results = []
    for entry in truth.dataset["annotations"]:
        if rng.random() < 0.8:
            x, y, width, height = np.array(entry["bbox"]) + rng.normal(0, 2, 4)
            mask = np.roll(truth.annToMask(entry), rng.integers(-3, 4), axis=1)
            results.append(
                {
                    "image_id": entry["image_id"],
                    "label": 1 + reader.category_ids.index(entry["category_id"]),
                    "category_id": entry["category_id"],
                    "bbox": [x, y, max(width, 1.0), max(height, 1.0)],
                    "segmentation": rle.encode(np.asfortranarray(mask)),
                    "score": float(rng.random()),
                }
            )
    scores = Detection().summarize([results], reader)
    assert scores == average_precision(truth, results)
    assert 5 < scores["ap_mask"] < 95
    ours = ground_truth(reader.annotation_file)
    assert [a["area"] for a in ours.dataset["annotations"]] == [
        a["area"] for a in truth.dataset["annotations"]
    ]
