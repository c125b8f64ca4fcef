"""COCO annotation files: whatever is in one is refused by name, or read, and perfect detections score 100."""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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

HEIGHT, WIDTH = 20, 30
Document = dict[str, Any]


def block(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return mask


def document() -> Document:
    """Two images; in the first a polygon, two run-length codes and a crowd."""
    code = rle.encode(block(16, 6, 26, 16))
    runs = [4 * HEIGHT, 3 * HEIGHT, (WIDTH - 7) * HEIGHT]
    shapes: list[Document] = [
        {"category_id": 7, "bbox": [4, 5, 10, 8.5], "segmentation": [[4, 5, 14, 5, 14, 13.5, 4, 13.5]]},
        {
            "category_id": 3,
            "bbox": [16, 6, 10, 10],
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()},
        },
        {
            "category_id": 7,
            "bbox": [4, 0, 3, HEIGHT],
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs},
        },
        {
            "category_id": 3,
            "bbox": [0, 0, 3, 4],
            "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 4, 16, 4, 16, 4, HEIGHT * WIDTH - 44]},
        },
    ]
    return {
        "images": [
            {"id": 9, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH},
            {"id": 4, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [
            {"id": place, "image_id": 9, "area": 7.0, "iscrowd": 0, **shape}
            for place, shape in enumerate(shapes, 1)
        ],
        "categories": [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}],
    }


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
    """Return the faults of a dataset with this annotation file; the quick check finds the same."""
    path = coco.annotation_file(root, split)
    path.write_text(json.dumps(value))
    try:
        faults = verdict("coco", root, 2)
        assert coco.check(root, num_classes=2, full=False) == faults
    finally:
        path.write_text(json.dumps(document()))
    return faults


def changed(**changes: Any) -> Callable[[Document], None]:
    """Change the first annotation."""
    return lambda value: value["annotations"][0].update(changes)


def image_changed(**changes: Any) -> Callable[[Document], None]:
    return lambda value: value["images"][0].update(changes)


def every(change: Callable[[Document], Any], key: str = "annotations") -> Callable[[Document], None]:
    return lambda value: [change(entry) for entry in value[key]] and None


def run_lengths(counts: Any, size: Any = (HEIGHT, WIDTH), **changes: Any) -> Callable[[Document], None]:
    return changed(segmentation={"size": size, "counts": counts}, **changes)


def corners(entry: Document) -> None:
    x, y, width, height = entry["bbox"]
    entry["bbox"] = [x, y, x + width, y + height]


def renumbered(entries: list[Document], numbers: list[Any]) -> None:
    for entry, number in zip(entries, numbers, strict=True):
        entry["id"] = number


def image_ids(*numbers: Any) -> Callable[[Document], None]:
    def change(value: Document) -> None:
        renumbered(value["images"], list(numbers))
        for entry in value["annotations"]:
            entry["image_id"] = numbers[0]

    return change


def category_ids(*numbers: Any) -> Callable[[Document], None]:
    """In both splits; 7 becomes the first and 3 the second."""

    def change(value: Document) -> None:
        renumbered(value["categories"], list(numbers))
        for entry in value["annotations"]:
            entry["category_id"] = numbers[0 if entry["category_id"] == 7 else 1]

    return change


MADE_RIGHT: dict[str, Callable[[Document], Any]] = {
    "as it is": lambda value: None,
    "ids from 0": lambda value: renumbered(value["annotations"], [0, 1, 2, 3]),
    "ids repeat": lambda value: renumbered(value["annotations"], [1, 1, 1, 2]),
    "ids are text": lambda value: renumbered(value["annotations"], ["a", "b", "1", "1"]),
    "ids are odd": lambda value: renumbered(value["annotations"], [-1, 2**70, 1.5, None]),
    "ids are lists": lambda value: renumbered(value["annotations"], [[1], {}, True, math.nan]),
    "no ids": every(lambda entry: entry.pop("id")),
    "no areas": every(lambda entry: entry.pop("area")),
    "a negative area": changed(area=-5.0),
    "an area of NaN": changed(area=math.nan),
    "an area as text": changed(area="12"),
    "a huge area": changed(area=1e30),
    "no iscrowd": lambda value: [entry.pop("iscrowd") for entry in value["annotations"][:3]],
    "iscrowd as a truth value": changed(iscrowd=False),
    "iscrowd 0.0": changed(iscrowd=0.0),
    "a crowd with a polygon": lambda value: value["annotations"][3].update(
        segmentation=[[0, 0, 3, 0, 3, 4, 0, 4]]
    ),
    "an empty run": run_lengths([100, 0, 20, 80, 400], bbox=[6, 0, 4, 20]),
    "more empty runs": run_lengths([60, 0, 0, 0, 20, 80, 0, 0, 440], bbox=[4, 0, 4, 20]),
    "an empty run at the end": run_lengths([100, 100, 400, 0], bbox=[5, 0, 5, 20]),
    "a polygon that leaves the image": changed(
        segmentation=[[4, 5, 14, 5, 14, 25, 4, 25]], bbox=[4, 5, 10, 15]
    ),
    "a second polygon": changed(segmentation=[[4, 5, 14, 5, 14, 9, 4, 9], [5, 10, 12, 10, 12, 13, 5, 13]]),
    "a box rounded outwards": changed(bbox=[3, 4, 12, 11]),
    "the whole object's box": changed(bbox=[2, 2, 20, 17]),
    "the same twice": lambda value: value["annotations"].append(copy.deepcopy(value["annotations"][0])),
    "image ids from 0": image_ids(0, 1),
    "negative image ids": image_ids(-3, -2),
    "large image ids": image_ids(2**53 + 1, 2**53 + 2),
    "the largest image ids": image_ids(2**63 - 1, 2**63 - 2),
    "more keys": lambda value: value.update(info=None, licenses="x", extra=[[[]]]),
}


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


FIRST = r"annotations\[0\] \(id 1\) "
REFUSED: dict[str, tuple[Callable[[Document], Any], str]] = {
    "bbox missing": (lambda value: value["annotations"][0].pop("bbox"), FIRST + "has the bbox None"),
    "bbox short": (changed(bbox=[1, 2, 3]), r"has the bbox \[1, 2, 3\], which is not \[x, y, width"),
    "bbox long": (changed(bbox=[1, 2, 3, 4, 5]), "which is not"),
    "bbox of text": (changed(bbox=["4", "5", "10", "8"]), "which is not"),
    "bbox of truth": (changed(bbox=[4, 5, True, 8]), "which is not"),
    "bbox as text": (changed(bbox="4 5 10 8"), "which is not"),
    "bbox nested": (changed(bbox=[[4, 5], [10, 8]]), "which is not"),
    "bbox turned": (changed(bbox=[14, 13, -10, -8]), "a side that is not a number >= 0"),
    "bbox of NaN": (changed(bbox=[4, 5, math.nan, 8]), "a side that is not a number >= 0"),
    "bbox from NaN": (changed(bbox=[math.nan, 5, 10, 8]), "leaves its image of 30x20"),
    "bbox infinite": (changed(bbox=[4, 5, math.inf, 8]), "leaves its image"),
    "bbox from -infinity": (changed(bbox=[-math.inf, 5, math.inf, 8]), "leaves its image"),
    "bbox beyond floats": (changed(bbox=[4, 5, 10**400, 8]), "leaves its image"),
    "bbox starts beyond floats": (changed(bbox=[-(10**400), 5, 1.5, 8]), "leaves its image"),
    "bbox outside": (changed(bbox=[40, 5, 3, 3]), "leaves its image"),
    "bbox empty": (changed(bbox=[4, 5, 0, 8]), "without area"),
    "bbox a hair": (changed(bbox=[4, 5, 1e-15, 8]), "without area"),
    "bbox elsewhere": (changed(bbox=[20, 1, 4, 4]), r"but its segmentation spans \[4, 5, 10, 8.5\]"),
    "bbox in parts of the image": (changed(bbox=[4 / 30, 5 / 20, 10 / 30, 8.5 / 20]), "a bbox is in pixels"),
    "bbox around a centre": (changed(bbox=[9, 9.25, 10, 8.5]), "but its segmentation spans"),
    "bbox by its corners": (every(corners), "which is|leaves its image"),
    "bbox by corners that fit": (changed(bbox=[4, 5, 14, 13.5]), r"which is \[x1, y1, x2, y2\]"),
    "segmentation missing": (
        lambda value: value["annotations"][0].pop("segmentation"),
        "neither polygons nor",
    ),
    "segmentation null": (changed(segmentation=None), "neither polygons nor a run-length code"),
    "segmentation empty": (changed(segmentation=[]), "three or more pairs"),
    "segmentation of nothing": (changed(segmentation=[[]]), "three or more pairs"),
    "segmentation text": (changed(segmentation="4 5 14 5"), "neither polygons nor"),
    "polygon flat": (changed(segmentation=[4, 5, 14, 5, 14, 13]), r"one flat list; write .* \[\[x1"),
    "polygon of a box": (changed(segmentation=[[4, 5, 14, 13]]), "three or more pairs"),
    "polygon odd": (changed(segmentation=[[4, 5, 14, 5, 14, 13, 4]]), "three or more pairs"),
    "polygon of pairs": (changed(segmentation=[[[4, 5], [14, 5], [14, 13]]]), "three or more pairs"),
    "polygon of more pairs": (changed(segmentation=[[[4, 5]] * 6]), "which is not a number"),
    "polygon of text": (
        changed(segmentation=[["4", "5", "14", "5", "14", "13"]]),
        "'4', which is not a number",
    ),
    "polygon with text": (changed(segmentation=[[4, 5, 14, 5, 14, "13"]]), "'13', which is not a number"),
    "polygon with truth": (changed(segmentation=[[4, 5, 14, 5, 14, True]]), "True, which is not a number"),
    "polygon with null": (changed(segmentation=[[4, 5, None, 5, 14, 13]]), "None, which is not a number"),
    "polygon with NaN": (changed(segmentation=[[4, 5, 14, math.nan, 14, 13]]), "nan, far outside"),
    "polygon infinite": (changed(segmentation=[[4, 5, math.inf, 5, 14, 13]]), "inf, far outside"),
    "polygon far away": (changed(segmentation=[[4, 5, 1e9, 5, 14, 13]]), "far outside"),
    "polygon beyond floats": (changed(segmentation=[[4, 5.5, 10**400, 5, 14, 13]]), "far outside"),
    "polygon without area": (
        changed(segmentation=[[4, 5, 14, 5, 9, 5]], bbox=[4, 4, 10, 2]),
        "without a pixel",
    ),
    "polygon beside the image": (
        changed(segmentation=[[40, 5, 44, 5, 44, 13]], bbox=[28, 5, 4, 8]),
        "without a pixel",
    ),
    "polygon mixed with a code": (
        changed(segmentation=[{"size": [20, 30], "counts": "0"}]),
        "three or more pairs",
    ),
    "polygon without end": (
        changed(segmentation=[[0, 0, 30, 20] * 100_000], bbox=[0, 0, 30, 20]),
        "pixels of outline",
    ),
    "code too short": (run_lengths([10, 20]), "do not add up to the 600 pixels"),
    "code too long": (run_lengths([10, 10**6]), "do not add up to the 600 pixels"),
    "code beyond memory": (run_lengths([10, 2**62]), "do not add up"),
    "code beyond 64 bits": (run_lengths([2**64 + 600]), "do not add up"),
    "code empty": (run_lengths([]), "do not add up"),
    "code negative": (run_lengths([700, -100]), "not integers >= 0"),
    "code of text": (run_lengths(["300", "300"]), "not integers >= 0"),
    "code of floats": (run_lengths([300.0, 300.0]), "not integers >= 0"),
    "code of truth": (run_lengths([599, True]), "not integers >= 0"),
    "code of NaN": (run_lengths([300, math.nan]), "not integers >= 0"),
    "code nested": (run_lengths([[300, 300]]), "not integers >= 0"),
    "code null": (run_lengths(None), "not integers >= 0"),
    "code without a pixel": (run_lengths([600]), "without a pixel"),
    "code of another size": (run_lengths([300, 300], (30, 20)), r"a mask of \[30, 20\] for .* \[20, 30\]"),
    "code of a float size": (run_lengths([300, 300], (20.0, 30.0)), r"a mask of \[20.0, 30.0\]"),
    "code of a text size": (run_lengths([300, 300], "20x30"), "a mask of '20x30'"),
    "code without counts": (changed(segmentation={"size": [20, 30]}), "neither polygons nor"),
    "packed code garbage": (run_lengths("hello world"), "cannot be decoded"),
    "packed code of other letters": (run_lengths("\u00e9\u00e9"), "cannot be decoded"),
    "packed code of half a pair": (run_lengths("\ud800"), "cannot be decoded"),
    "packed code with a null": (run_lengths("X\0Y"), "cannot be decoded"),
    "packed code empty": (run_lengths(""), "do not add up"),
    "packed code cut": (run_lengths("Q"), "ends within a number"),
    "packed code without end": (run_lengths("o" * 10_000), "cannot be decoded"),
    "packed code of another mask": (
        run_lengths(rle.encode(np.ones((40, 40), np.uint8, order="F"))["counts"].decode()),
        "do not add up",
    ),
    "iscrowd text": (changed(iscrowd="0"), "iscrowd '0', which is neither 0 nor 1"),
    "iscrowd 2": (changed(iscrowd=2), "iscrowd 2"),
    "iscrowd null": (changed(iscrowd=None), "iscrowd None"),
    "iscrowd a list": (changed(iscrowd=[0]), "iscrowd"),
    "category unknown": (changed(category_id=77), "category_id 77, which is no category"),
    "category text": (changed(category_id="7"), "category_id '7'"),
    "category truth": (changed(category_id=True), "category_id True"),
    "category a float": (changed(category_id=7.0), "category_id 7.0"),
    "category a list": (changed(category_id=[7]), "category_id"),
    "category missing": (lambda value: value["annotations"][0].pop("category_id"), "category_id None"),
    "image unknown": (changed(image_id=5), "is of image 5, which is not listed"),
    "image text": (changed(image_id="9"), "is of image '9'"),
    "image a mapping": (changed(image_id={}), "is of image"),
    "an annotation is text": (
        lambda value: value["annotations"].append("x"),
        r"annotations\[4\] is not a mapping",
    ),
    "a long value": (changed(category_id="7" * 10_000), "category_id '7+"),
    "image id repeats": (
        lambda value: value["images"][1].update(id=9),
        r"images\[1\] \(id 9\) has the id of",
    ),
    "image id missing": (lambda value: value["images"][1].pop("id"), r"images\[1\] has no id"),
    "image id text": (image_ids("9", "4"), "has no id that is an integer"),
    "image id truth": (image_ids(True, False), "has no id that is an integer"),
    "image id beyond 64 bits": (image_ids(2**63, 4), "has no id that is an integer of 64 bits"),
    "file name missing": (lambda value: value["images"][0].pop("file_name"), "the file_name None"),
    "file name a number": (image_changed(file_name=5), "the file_name 5"),
    "file name empty": (image_changed(file_name=""), "the file_name ''"),
    "file name absolute": (
        image_changed(file_name="/etc/a.jpg"),
        "'/etc/a.jpg', which is not the name of a file",
    ),
    "file name above": (image_changed(file_name="../val2017/a.jpg"), "which is not the name of a file"),
    "file name below": (image_changed(file_name="sub/a.jpg"), "which is not the name of a file"),
    "file name hidden": (image_changed(file_name=".a.jpg"), "an image ends in"),
    "file name of a GIF": (image_changed(file_name="a.gif"), "an image ends in .jpg"),
    "file name null byte": (image_changed(file_name="a\0.jpg"), "which is not the name of a file"),
    "file name half a pair": (image_changed(file_name="a\udc80.jpg"), "which is not the name of a file"),
    "file name repeats": (image_changed(file_name="b.jpg"), "'b.jpg' of an earlier one"),
    "file missing": (image_changed(file_name="c.jpg"), r"val2017/c\.jpg is missing"),
    "height missing": (lambda value: value["images"][0].pop("height"), "the height None"),
    "width missing": (lambda value: value["images"][0].pop("width"), "the width None"),
    "width 0": (image_changed(width=0), "the width 0, which is not an integer >= 1"),
    "width negative": (image_changed(width=-30), "the width -30"),
    "width text": (image_changed(width="30"), "the width '30'"),
    "width a float": (image_changed(width=30.0), "the width 30.0"),
    "width truth": (image_changed(width=True), "the width True"),
    "width without bounds": (image_changed(width=10**9, height=10**9), r"is 1000000000x1000000000 pixels"),
    "width and height swapped": (
        lambda value: [value["images"][1].update(width=20, height=30)],
        "is 30x20, but its record says 20x30",
    ),
    "category id repeats": (
        every(lambda entry: entry.update(id=7), "categories"),
        r"categories\[1\] \(id 7\) has",
    ),
    "category id text": (category_ids("7", "3"), r"categories\[0\] \(id '7'\) has no id"),
    "category id missing": (every(lambda entry: entry.pop("id"), "categories"), r"categories\[0\] has no id"),
    "category name missing": (every(lambda entry: entry.pop("name"), "categories"), "has no name"),
    "category name empty": (every(lambda entry: entry.update(name=" "), "categories"), "has no name"),
    "category name a number": (every(lambda entry: entry.update(name=3), "categories"), "has no name"),
    "categories of another split": (category_ids(8, 3), "its categories are not those of"),
    "names of another split": (
        lambda value: value["categories"].reverse() or renumbered(value["categories"], [7, 3]),
        "its categories are not those of",
    ),
    "an empty category": (every(lambda entry: entry.update(category_id=7)), "'three' is an empty class"),
    "no annotations": (lambda value: value["annotations"].clear(), "no annotation that is not a crowd"),
    "crowds alone": (every(lambda entry: entry.update(iscrowd=1)), "no annotation that is not a crowd"),
    "no images": (lambda value: value["images"].clear(), r"a\.jpg has no record"),
    "no list of images": (lambda value: value.pop("images"), "lacks the list 'images'"),
    "images in a mapping": (lambda value: value.update(images={}), "lacks the list 'images'"),
    "too many to count": (
        lambda value: value.update(annotations=101 * value["annotations"]),
        "precision counts 100 detections",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_none_is_refused_with_file_and_entry(name: str, root: Path) -> None:
    change, message = REFUSED[name]
    value = document()
    change(value)
    faults = "\n".join(judged(root, value))
    assert "val2017" in faults
    assert re.search(message, faults), faults


def test_a_reader_names_the_first_fault(root: Path) -> None:
    value = document()
    every(corners)(value)
    path = coco.annotation_file(root, "val")
    path.write_text(json.dumps(value))
    try:
        with pytest.raises(InputError, match=r"annotations\[0\] \(id 1\) has the bbox .* And 3 more"):
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
