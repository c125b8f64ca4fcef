"""A small COCO annotation file and what may be wrong with it: each case changes the file.

`MADE_RIGHT` has one right reading; `REFUSED` has none, and comes with a pattern of the sentence that says so.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools import mask as rle

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


FIRST = r"annotations\[0\] \(id 1\) "
REFUSED: dict[str, tuple[Callable[[Document], Any], str]] = {
    "bbox missing": (lambda value: value["annotations"][0].pop("bbox"), FIRST + "has the bbox None"),
    "bbox short": (changed(bbox=[1, 2, 3]), r"has the bbox \[1, 2, 3\], which must be \[x, y, width"),
    "bbox long": (changed(bbox=[1, 2, 3, 4, 5]), "which must be"),
    "bbox of text": (changed(bbox=["4", "5", "10", "8"]), "which must be"),
    "bbox of truth": (changed(bbox=[4, 5, True, 8]), "which must be"),
    "bbox as text": (changed(bbox="4 5 10 8"), "which must be"),
    "bbox nested": (changed(bbox=[[4, 5], [10, 8]]), "which must be"),
    "bbox turned": (changed(bbox=[14, 13, -10, -8]), "must be numbers >= 0"),
    "bbox of NaN": (changed(bbox=[4, 5, math.nan, 8]), "must be numbers >= 0"),
    "bbox from NaN": (changed(bbox=[math.nan, 5, 10, 8]), "outside its image of 30x20"),
    "bbox infinite": (changed(bbox=[4, 5, math.inf, 8]), "outside its image"),
    "bbox from -infinity": (changed(bbox=[-math.inf, 5, math.inf, 8]), "outside its image"),
    "bbox beyond floats": (changed(bbox=[4, 5, 10**400, 8]), "outside its image"),
    "bbox starts beyond floats": (changed(bbox=[-(10**400), 5, 1.5, 8]), "outside its image"),
    "bbox outside": (changed(bbox=[40, 5, 3, 3]), "outside its image"),
    "bbox half outside": (changed(bbox=[-2, 5, 18, 10]), "too much of which is outside the image"),
    "bbox empty": (changed(bbox=[4, 5, 0, 8]), "without area"),
    "bbox a hair": (changed(bbox=[4, 5, 1e-15, 8]), "without area"),
    "bbox elsewhere": (changed(bbox=[20, 1, 4, 4]), r"but its segmentation spans \[4, 5, 10, 8.5\]"),
    "bbox in parts of the image": (changed(bbox=[4 / 30, 5 / 20, 10 / 30, 8.5 / 20]), "a bbox is in pixels"),
    "bbox around a center": (changed(bbox=[9, 9.25, 10, 8.5]), "but its segmentation spans"),
    "bbox by its corners": (every(corners), "which is|outside its image"),
    "bbox by corners that fit": (changed(bbox=[4, 5, 14, 13.5]), r"which is \[x1, y1, x2, y2\]"),
    "segmentation missing": (
        lambda value: value["annotations"][0].pop("segmentation"),
        "neither polygons nor",
    ),
    "segmentation null": (changed(segmentation=None), "neither polygons nor a run-length encoding"),
    "segmentation empty": (changed(segmentation=[]), "at least three pairs"),
    "segmentation of nothing": (changed(segmentation=[[]]), "at least three pairs"),
    "segmentation text": (changed(segmentation="4 5 14 5"), "neither polygons nor"),
    "polygon flat": (changed(segmentation=[4, 5, 14, 5, 14, 13]), r"a flat list; it must be .* \[\[x1"),
    "polygon of a box": (changed(segmentation=[[4, 5, 14, 13]]), "at least three pairs"),
    "polygon odd": (changed(segmentation=[[4, 5, 14, 5, 14, 13, 4]]), "at least three pairs"),
    "polygon of pairs": (changed(segmentation=[[[4, 5], [14, 5], [14, 13]]]), "at least three pairs"),
    "polygon of more pairs": (changed(segmentation=[[[4, 5]] * 6]), "which must be a number"),
    "polygon of text": (
        changed(segmentation=[["4", "5", "14", "5", "14", "13"]]),
        "'4', which must be a number",
    ),
    "polygon with text": (changed(segmentation=[[4, 5, 14, 5, 14, "13"]]), "'13', which must be a number"),
    "polygon with truth": (changed(segmentation=[[4, 5, 14, 5, 14, True]]), "True, which must be a number"),
    "polygon with null": (changed(segmentation=[[4, 5, None, 5, 14, 13]]), "None, which must be a number"),
    "polygon with NaN": (changed(segmentation=[[4, 5, 14, math.nan, 14, 13]]), "nan, far outside"),
    "polygon infinite": (changed(segmentation=[[4, 5, math.inf, 5, 14, 13]]), "inf, far outside"),
    "polygon far away": (changed(segmentation=[[4, 5, 1e9, 5, 14, 13]]), "far outside"),
    "polygon beyond floats": (changed(segmentation=[[4, 5.5, 10**400, 5, 14, 13]]), "far outside"),
    "polygon without area": (
        changed(segmentation=[[4, 5, 14, 5, 9, 5]], bbox=[4, 4, 10, 2]),
        "empty segmentation",
    ),
    "polygon beside the image": (
        changed(segmentation=[[40, 5, 44, 5, 44, 13]], bbox=[28, 5, 4, 8]),
        "empty segmentation",
    ),
    "polygon mixed with a code": (
        changed(segmentation=[{"size": [20, 30], "counts": "0"}]),
        "at least three pairs",
    ),
    "polygon without end": (
        changed(segmentation=[[0, 0, 30, 20] * 100_000], bbox=[0, 0, 30, 20]),
        "with an outline of",
    ),
    "code too short": (run_lengths([10, 20]), "do not add up to the 600 pixels"),
    "code too long": (run_lengths([10, 10**6]), "do not add up to the 600 pixels"),
    "code beyond memory": (run_lengths([10, 2**62]), "do not add up"),
    "code beyond 64 bits": (run_lengths([2**64 + 600]), "do not add up"),
    "code empty": (run_lengths([]), "do not add up"),
    "code negative": (run_lengths([700, -100]), "must be integers >= 0"),
    "code of text": (run_lengths(["300", "300"]), "must be integers >= 0"),
    "code of floats": (run_lengths([300.0, 300.0]), "must be integers >= 0"),
    "code of truth": (run_lengths([599, True]), "must be integers >= 0"),
    "code of NaN": (run_lengths([300, math.nan]), "must be integers >= 0"),
    "code nested": (run_lengths([[300, 300]]), "must be integers >= 0"),
    "code null": (run_lengths(None), "must be integers >= 0"),
    "code without a pixel": (run_lengths([600]), "empty segmentation"),
    "code of another size": (run_lengths([300, 300], (30, 20)), r"a mask of size \[30, 20\], .* \[20, 30\]"),
    "code of a float size": (run_lengths([300, 300], (20.0, 30.0)), r"a mask of size \[20.0, 30.0\]"),
    "code of a text size": (run_lengths([300, 300], "20x30"), "a mask of size '20x30'"),
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
    "iscrowd text": (changed(iscrowd="0"), "iscrowd '0', which must be 0 or 1"),
    "iscrowd 2": (changed(iscrowd=2), "iscrowd 2"),
    "iscrowd null": (changed(iscrowd=None), "iscrowd None"),
    "iscrowd a list": (changed(iscrowd=[0]), "iscrowd"),
    "category unknown": (changed(category_id=77), "category_id 77, which is not in categories"),
    "category text": (changed(category_id="7"), "category_id '7'"),
    "category truth": (changed(category_id=True), "category_id True"),
    "category a float": (changed(category_id=7.0), "category_id 7.0"),
    "category a list": (changed(category_id=[7]), "category_id"),
    "category missing": (lambda value: value["annotations"][0].pop("category_id"), "category_id None"),
    "image unknown": (changed(image_id=5), "has image_id 5, which is not in images"),
    "image text": (changed(image_id="9"), "has image_id '9'"),
    "image a mapping": (changed(image_id={}), "has image_id"),
    "an annotation is text": (
        lambda value: value["annotations"].append("x"),
        r"annotations\[4\] must be a mapping",
    ),
    "a long value": (changed(category_id="7" * 10_000), "category_id '7+"),
    "image id repeats": (
        lambda value: value["images"][1].update(id=9),
        r"images\[1\] \(id 9\) has the duplicate id",
    ),
    "image id missing": (lambda value: value["images"][1].pop("id"), r"images\[1\] has the id None"),
    "image id text": (image_ids("9", "4"), "must be a 64-bit integer"),
    "image id truth": (image_ids(True, False), "must be a 64-bit integer"),
    "image id beyond 64 bits": (image_ids(2**63, 4), "must be a 64-bit integer"),
    "file name missing": (lambda value: value["images"][0].pop("file_name"), "the file_name None"),
    "file name a number": (image_changed(file_name=5), "the file_name 5"),
    "file name empty": (image_changed(file_name=""), "the file_name ''"),
    "file name absolute": (
        image_changed(file_name="/etc/a.jpg"),
        "'/etc/a.jpg', which must be the name of a file",
    ),
    "file name above": (image_changed(file_name="../val2017/a.jpg"), "which must be the name of a file"),
    "file name below": (image_changed(file_name="sub/a.jpg"), "which must be the name of a file"),
    "file name hidden": (image_changed(file_name=".a.jpg"), "must end in"),
    "file name of a GIF": (image_changed(file_name="a.gif"), "must end in .jpg"),
    "file name null byte": (image_changed(file_name="a\0.jpg"), "which must be the name of a file"),
    "file name half a pair": (image_changed(file_name="a\udc80.jpg"), "which must be the name of a file"),
    "file name repeats": (image_changed(file_name="b.jpg"), "duplicate file_name 'b.jpg'"),
    "file missing": (image_changed(file_name="c.jpg"), r"val2017/c\.jpg is missing"),
    "height missing": (lambda value: value["images"][0].pop("height"), "the height None"),
    "width missing": (lambda value: value["images"][0].pop("width"), "the width None"),
    "width 0": (image_changed(width=0), "the width 0, which must be an integer >= 1"),
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
    "category id text": (category_ids("7", "3"), "has the id '7'"),
    "category id missing": (
        every(lambda entry: entry.pop("id"), "categories"),
        r"categories\[0\] has the id None",
    ),
    "category name missing": (every(lambda entry: entry.pop("name"), "categories"), "has no name"),
    "category name empty": (every(lambda entry: entry.update(name=" "), "categories"), "has no name"),
    "category name a number": (every(lambda entry: entry.update(name=3), "categories"), "has no name"),
    "categories of another split": (category_ids(8, 3), "the categories differ from those of"),
    "names of another split": (
        lambda value: value["categories"].reverse() or renumbered(value["categories"], [7, 3]),
        "the categories differ from those of",
    ),
    "an empty category": (every(lambda entry: entry.update(category_id=7)), "'three' is an empty class"),
    "no annotations": (lambda value: value["annotations"].clear(), "no annotations other than crowds"),
    "crowds alone": (every(lambda entry: entry.update(iscrowd=1)), "no annotations other than crowds"),
    "no images": (lambda value: value["images"].clear(), r"a\.jpg has no record"),
    "no list of images": (lambda value: value.pop("images"), "has no list 'images'"),
    "images in a mapping": (lambda value: value.update(images={}), "has no list 'images'"),
    "too many to count": (
        lambda value: value.update(annotations=101 * value["annotations"]),
        "precision counts 100 detections",
    ),
}
