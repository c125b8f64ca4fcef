"""COCO annotation files as checked records, the same for the check, the reader and the evaluation.

The ids of annotations, which may be missing or repeat, and `area` are not needed and not read.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from m2pt.datasets.images import SUFFIXES, is_image, size_problem
from m2pt.errors import InputError
from m2pt.formats.documents import read_listing

SLACK = 2
"""Pixels that a box may extend beyond its image, since boxes are rounded."""

INSIDE = 0.96
"""Least share of a box in evaluation that is inside its image; the strictest IoU is 0.95."""

SMALLEST_SIDE = 1e-3
"""Least side in pixels of a box in evaluation: a smaller one is lost in rounding and never matched."""

LONGEST_OUTLINE = 2_000_000
"""Longest outline of polygons in pixels: pycocotools needs about 100 bytes for each."""

MOST_DETECTIONS = 100
"""Detections of a category in an image that COCO's average precision counts."""

NUMBERS = {int, float}

Segmentation = list[list[float]] | dict[str, Any]
"""Polygons `[x1, y1, x2, y2, ...]`, or a run-length encoding: `size` = [height, width] and `counts`."""

Rectangle = tuple[float, float, float, float]


class Instance(NamedTuple):
    """One annotation: `label` is the rank of its category's id, from 1; `box` is x, y, width, height."""

    label: int
    box: list[float]
    segmentation: Segmentation
    crowd: int


class Picture(NamedTuple):
    """One image and its instances, in the order of the file."""

    id: int
    file_name: str
    height: int
    width: int
    instances: list[Instance]


class Records(NamedTuple):
    """The content of an annotation file: `{id: name}` of the categories, and the pictures, by ascending id.

    `problems` has a sentence for every invalid entry; such entries are left out.
    """

    categories: dict[int, str]
    pictures: list[Picture]
    problems: list[str]


class _InvalidEntry(Exception):
    """An entry is invalid; the message completes "categories[0] ..."."""


def read_records(path: Path, *, evaluated: bool) -> Records:
    """Read an annotation file.

    With `evaluated`, for a validation split, annotations that no detection can match are problems too: a box
    or mask without area, or more instances than average precision counts detections.

    Raises:
        InputError: the file is missing, is not JSON, or lacks one of the three lists.
    """
    document = read_listing(path)
    for key in ("categories", "images", "annotations"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise InputError(f"{path} has no list {key!r}: it is not a COCO instances file.")
    reader = _FileReader(evaluated)
    problems = [
        f"{path}: {problem}."
        for key, read in (
            ("categories", reader.category),
            ("images", reader.image),
            ("annotations", reader.annotation),
        )
        for problem in _invalid_entries(document[key], key, read)
    ]
    problems += [f"{path}: {problem}." for problem in reader.overall_problems()]
    pictures = [picture for _, picture in sorted(reader.pictures.items()) if picture is not None]
    return Records(dict(sorted(reader.categories.items())), pictures, problems)


def decode_mask(segmentation: Segmentation, height: int, width: int) -> NDArray[np.uint8]:
    """Return the (height, width) mask, 1 inside, of a segmentation that `read_records` accepted."""
    return rle.decode(run_length_code(segmentation, height, width))  # type: ignore[no-any-return]


def run_length_code(segmentation: Segmentation, height: int, width: int) -> dict[str, Any]:
    """Return the compressed run-length encoding of a segmentation that `read_records` accepted.

    Polygons are merged, as in pycocotools, which crashes or hangs on invalid input.
    """
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, height, width))  # type: ignore[no-any-return]
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, height, width)  # type: ignore[no-any-return]
    return segmentation


def _invalid_entries(entries: list[Any], key: str, read: Callable[[dict[str, Any]], None]) -> Iterator[str]:
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield f"{key}[{place}] must be a mapping"
            continue
        try:
            read(entry)
        except _InvalidEntry as problem:
            identity = f" (id {_brief(entry['id'])})" if "id" in entry else ""
            yield f"{key}[{place}]{identity} {problem}"


class _FileReader:
    """Collects the records of one file: read its categories first, then images, then annotations."""

    def __init__(self, evaluated: bool) -> None:
        self.evaluated = evaluated
        self.categories: dict[int, str] = {}
        self.pictures: dict[int, Picture | None] = {}
        self._names: set[str] = set()
        self._labels: dict[int, int] = {}

    def category(self, entry: dict[str, Any]) -> None:
        number, name = _identity(entry, self.categories), entry.get("name")
        self.categories[number] = str(name)
        if not isinstance(name, str) or not name.strip():
            raise _InvalidEntry("has no name")

    def image(self, entry: dict[str, Any]) -> None:
        number = _identity(entry, self.pictures)
        self.pictures[number] = None  # known, so that its annotations are not problems as well
        name = entry.get("file_name")
        if not isinstance(name, str) or not _is_file_name(name):
            raise _InvalidEntry(
                f"has the file_name {_brief(name)}, which must be the name of a file in the split's folder"
            )
        if not is_image(name) or name.startswith("."):
            raise _InvalidEntry(f"has the file_name {_brief(name)}, which must end in {', '.join(SUFFIXES)}")
        if name in self._names:
            raise _InvalidEntry(f"has the duplicate file_name {_brief(name)}")
        self._names.add(name)
        height, width = _side(entry, "height"), _side(entry, "width")
        if problem := size_problem(width, height):
            raise _InvalidEntry(problem)
        self.pictures[number] = Picture(number, name, height, width, [])

    def annotation(self, entry: dict[str, Any]) -> None:
        if not self._labels:
            self._labels = {number: label for label, number in enumerate(sorted(self.categories), 1)}
        category, image = entry.get("category_id"), entry.get("image_id")
        if type(category) is not int or category not in self._labels:
            raise _InvalidEntry(f"has category_id {_brief(category)}, which is not in categories")
        if type(image) is not int or image not in self.pictures:
            raise _InvalidEntry(f"has image_id {_brief(image)}, which is not in images")
        picture = self.pictures[image]
        if picture is None:
            return
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise _InvalidEntry(f"has iscrowd {_brief(crowd)}, which must be 0 or 1")
        box = _box(entry.get("bbox"), picture)
        segmentation, mask = _segmentation(entry.get("segmentation"), picture)
        if not crowd and self.evaluated:
            _require_area(box, segmentation, picture)
        if not crowd:
            _compare(box, mask)
        picture.instances.append(Instance(self._labels[category], box, segmentation, int(crowd)))

    def overall_problems(self) -> Iterator[str]:
        pictures = [picture for picture in self.pictures.values() if picture is not None]
        if all(instance.crowd for picture in pictures for instance in picture.instances):
            yield "has no annotations other than crowds"
        for picture in pictures if self.evaluated else ():
            labels = Counter(instance.label for instance in picture.instances if not instance.crowd)
            if labels and max(labels.values()) > MOST_DETECTIONS:
                yield (
                    f"image {picture.id} has {max(labels.values())} annotations of one category, but average "
                    f"precision counts {MOST_DETECTIONS} detections; merge some into a crowd"
                )


def _is_file_name(name: str) -> bool:
    """Return True if a file can have this name: it is no path and can be encoded."""
    return name != "" and not any(c in "/\0" or "\ud800" <= c <= "\udfff" for c in name)


def _identity(entry: dict[str, Any], earlier: dict[int, Any]) -> int:
    number = entry.get("id")
    if type(number) is not int or not -(2**63) <= number < 2**63:
        raise _InvalidEntry(f"has the id {_brief(number)}, which must be a 64-bit integer")
    if number in earlier:
        raise _InvalidEntry(f"has the duplicate id {number}")
    return number


def _side(entry: dict[str, Any], key: str) -> int:
    side = entry.get(key)
    if type(side) is not int or side < 1:
        raise _InvalidEntry(f"has the {key} {_brief(side)}, which must be an integer >= 1")
    return side


# ---- boxes -------------------------------------------------------------------------------------------------


def _box(box: Any, picture: Picture) -> list[float]:
    if type(box) is not list or len(box) != 4 or not NUMBERS.issuperset(map(type, box)):
        raise _InvalidEntry(f"has the bbox {_brief(box)}, which must be [x, y, width, height]")
    for start, length, limit in ((box[0], box[2], picture.width), (box[1], box[3], picture.height)):
        if not length >= 0:  # also for NaN
            raise _InvalidEntry(f"has the bbox {_brief(box)}, whose width and height must be numbers >= 0")
        # without a sum: it may overflow
        if not -SLACK <= start <= limit + SLACK or not length <= limit + SLACK - start:
            raise _InvalidEntry(
                f"has the bbox {_brief(box)} outside its image of {picture.width}x{picture.height} "
                "pixels; a bbox is [x, y, width, height]"
            )
    return box


def _compare(box: list[float], mask: Rectangle) -> None:
    """Reject a box in another format: it does not contain the mask, or has corners in place of sides."""
    left, top, right, bottom = mask
    x, y, width, height = box
    if max(x, y) > SLACK and all(abs(a - b) <= 1 for a, b in zip(box, mask, strict=True)):
        raise _InvalidEntry(
            f"has the bbox {_brief(box)}, which is [x1, y1, x2, y2], not [x, y, width, height]"
        )
    common = max(0, min(right, x + width) - max(left, x)) * max(0, min(bottom, y + height) - max(top, y))
    if common < (right - left) * (bottom - top) / 2:
        spanned = [round(value, 2) for value in (left, top, right - left, bottom - top)]
        raise _InvalidEntry(
            f"has the bbox {_brief(box)}, but its segmentation spans {spanned}; a bbox is in pixels"
        )


def _require_area(box: list[float], segmentation: Segmentation, picture: Picture) -> None:
    if min(box[2:]) < SMALLEST_SIDE:
        raise _InvalidEntry(
            f"has the bbox {_brief(box)} without area, which no detection can match; remove it"
        )
    if not rle.area(run_length_code(segmentation, picture.height, picture.width)):
        raise _InvalidEntry("has an empty segmentation, which no detection can match; remove it")
    x, y, width, height = box
    wide, high = min(x + width, picture.width) - max(x, 0), min(y + height, picture.height) - max(y, 0)
    if max(wide, 0) * max(high, 0) < INSIDE * width * height:
        raise _InvalidEntry(f"has the bbox {_brief(box)}, too much of which is outside the image; clip it")


# ---- masks -------------------------------------------------------------------------------------------------


def _segmentation(shape: Any, picture: Picture) -> tuple[Segmentation, Rectangle]:
    """Return a valid segmentation and the corners x1, y1, x2, y2 of its part in the image."""
    if type(shape) is list:
        return shape, _polygons(shape, picture)
    if type(shape) is dict and {"size", "counts"} <= shape.keys():
        return _run_lengths(shape, picture)
    raise _InvalidEntry("has a segmentation that is neither polygons nor a run-length encoding")


def _polygons(polygons: list[Any], picture: Picture) -> Rectangle:
    width, height = picture.width, picture.height
    lefts, tops, rights, bottoms = [], [], [], []
    outline = 0.0
    if polygons and NUMBERS.issuperset(map(type, polygons)):
        raise _InvalidEntry(
            "has a segmentation that is a flat list; it must be a list of polygons, [[x1, y1, ...]]"
        )
    for polygon in polygons or [[]]:
        if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2:
            raise _InvalidEntry("has a polygon that is not at least three pairs of x and y")
        if not NUMBERS.issuperset(map(type, polygon)):
            odd = next(value for value in polygon if type(value) not in NUMBERS)
            raise _InvalidEntry(f"has a polygon with {_brief(odd)}, which must be a number")
        xs, ys = polygon[::2], polygon[1::2]
        for values, limit in ((xs, width), (ys, height)):
            if not all(-limit <= value <= 2 * limit for value in values):
                odd = next(value for value in values if not -limit <= value <= 2 * limit)
                raise _InvalidEntry(
                    f"has a polygon with {_brief(odd)}, far outside its image of {width}x{height} pixels"
                )
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        lefts.append(left)
        tops.append(top)
        rights.append(right)
        bottoms.append(bottom)
        outline += len(xs) * max(right - left, bottom - top)
    if outline > LONGEST_OUTLINE:
        outline = sum(_outline(polygon) for polygon in polygons)
        if outline > LONGEST_OUTLINE:
            raise _InvalidEntry(
                f"has polygons with an outline of {outline:.0f} pixels, more than {LONGEST_OUTLINE}"
            )
    corners = (min(lefts), min(tops), max(rights), max(bottoms))
    return tuple(min(max(value, 0), limit) for value, limit in zip(corners, (width, height) * 2, strict=True))


def _outline(polygon: list[float]) -> float:
    """Return the length of a polygon's outline in pixels, each side along its longer axis."""
    points = np.array(polygon, np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(1).sum())


def _run_lengths(code: dict[str, Any], picture: Picture) -> tuple[Segmentation, Rectangle]:
    size, counts = code["size"], code["counts"]
    if size != [picture.height, picture.width] or set(map(type, size)) != {int}:
        raise _InvalidEntry(
            f"has a mask of size {_brief(size)}, but its image has {[picture.height, picture.width]}"
        )
    runs = _uncompressed(counts) if type(counts) is str else counts
    if type(runs) is not list or not {int}.issuperset(map(type, runs)) or (runs and min(runs) < 0):
        raise _InvalidEntry("has a run-length encoding whose counts must be integers >= 0")
    if sum(runs) != picture.height * picture.width:
        pixels = picture.height * picture.width
        raise _InvalidEntry(
            f"has a run-length encoding whose counts do not add up to the {pixels} pixels of its image"
        )
    kept: Segmentation = {"size": size, "counts": counts}
    if 0 in runs[1:]:
        kept = {"size": size, "counts": _without_empty_runs(runs)}
    left, top, width, height = rle.toBbox(run_length_code(kept, *size)).tolist()
    return kept, (left, top, left + width, top + height)


def _uncompressed(code: str) -> list[int]:
    """Return the run lengths of a compressed encoding, as the unchecked `rleFrString` of pycocotools."""
    runs: list[int] = []
    value = shift = 0
    for character in code:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise _InvalidEntry("has a run-length encoding that cannot be decoded")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
        value = shift = 0
    if shift:
        raise _InvalidEntry("has a run-length encoding that ends within a number")
    return runs


def _without_empty_runs(runs: list[int]) -> list[int]:
    """Merge the runs on both sides of an empty one, at which pycocotools stops when it compares masks."""
    joined, inside = [0], 0
    for place, run in enumerate(runs):
        if run and place % 2 == inside:
            joined[-1] += run
        elif run:
            joined.append(run)
            inside = 1 - inside
    return joined


def _brief(value: Any) -> str:
    """Return a short description of a value of any size and depth."""
    if isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(v, list | dict) for v in value)
    ):
        return f"a {type(value).__name__} of {len(value)} values"
    text = repr(value[:9] if isinstance(value, list) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
