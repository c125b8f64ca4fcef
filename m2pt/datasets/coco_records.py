"""COCO annotation files: every entry is checked and becomes a record, which check, reader and score rely on.

Not read is what none of them needs: the ids of annotations, which may be missing or repeat, and `area`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from m2pt.datasets.images import SUFFIXES, is_image, size_fault
from m2pt.errors import InputError
from m2pt.formats.documents import read_listing

SLACK = 2
"""Pixels that a box may reach beyond its image: boxes are rounded."""

INSIDE = 0.96
"""Share of a scored box within its image. Detections end at its border, and the strictest IoU is 0.95."""

SMALLEST_SIDE = 1e-3
"""Pixels. A box below is lost in rounding, and no detection can match it."""

LONGEST_OUTLINE = 2_000_000
"""Pixels. pycocotools needs about 100 bytes for each of a polygon's outline."""

MOST_DETECTIONS = 100
"""Detections of a category in an image that COCO's average precision counts."""

NUMBERS = {int, float}

Segmentation = list[list[float]] | dict[str, Any]
"""Polygons `[x1, y1, x2, y2, ...]`, or a run-length code: `size` = [height, width] and `counts`."""

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
    """What is in an annotation file: `{id: name}` of the categories and the pictures, both by ascending id.

    `faults` has a sentence for every entry that is not sound; such entries are left out.
    """

    categories: dict[int, str]
    pictures: list[Picture]
    faults: list[str]


class _Fault(Exception):
    """What is wrong with an entry."""


def read_records(path: Path, *, evaluated: bool) -> Records:
    """Read an annotation file.

    With `evaluated`, for a file to score against, what no detection can match is a fault, too: a box or mask
    without area, or more instances than average precision counts detections.

    Raises:
        InputError: the file is missing, is not JSON, or lacks one of its three lists.
    """
    document = read_listing(path)
    for key in ("categories", "images", "annotations"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise InputError(f"{path} lacks the list {key!r}: it is not a COCO instances file.")
    reader = _FileReader(evaluated)
    faults = [
        f"{path}: {fault}."
        for key, read in (
            ("categories", reader.category),
            ("images", reader.image),
            ("annotations", reader.annotation),
        )
        for fault in _faults(document[key], key, read)
    ]
    faults += [f"{path}: {fault}." for fault in reader.faults_of_all()]
    pictures = [picture for _, picture in sorted(reader.pictures.items()) if picture is not None]
    return Records(dict(sorted(reader.categories.items())), pictures, faults)


def decode_mask(segmentation: Segmentation, height: int, width: int) -> NDArray[np.uint8]:
    """Return the (height, width) mask, 1 inside, of a segmentation that `read_records` accepted."""
    return rle.decode(run_length_code(segmentation, height, width))  # type: ignore[no-any-return]


def run_length_code(segmentation: Segmentation, height: int, width: int) -> dict[str, Any]:
    """Return the compressed run-length code of a segmentation that `read_records` accepted.

    Polygons are joined, as pycocotools does. It crashes or waits for ever on what is not sound.
    """
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, height, width))  # type: ignore[no-any-return]
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, height, width)  # type: ignore[no-any-return]
    return segmentation


def _faults(entries: list[Any], key: str, read: Callable[[dict[str, Any]], None]) -> Iterator[str]:
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield f"{key}[{place}] is not a mapping of keys to values"
            continue
        try:
            read(entry)
        except _Fault as fault:
            identity = f" (id {_brief(entry['id'])})" if "id" in entry else ""
            yield f"{key}[{place}]{identity} {fault}"


class _FileReader:
    """The records of one file, as far as they are read: categories first, then images, then annotations."""

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
            raise _Fault("has no name")

    def image(self, entry: dict[str, Any]) -> None:
        number = _identity(entry, self.pictures)
        self.pictures[number] = None  # known, so that its annotations are not faults as well
        name = entry.get("file_name")
        if not isinstance(name, str) or not _is_file_name(name):
            raise _Fault(
                f"has the file_name {_brief(name)}, which is not the name of a file beside the others"
            )
        if not is_image(name) or name.startswith("."):
            raise _Fault(f"has the file_name {_brief(name)}, but an image ends in {', '.join(SUFFIXES)}")
        if name in self._names:
            raise _Fault(f"has the file_name {_brief(name)} of an earlier one")
        self._names.add(name)
        height, width = _side(entry, "height"), _side(entry, "width")
        if fault := size_fault(width, height):
            raise _Fault(fault)
        self.pictures[number] = Picture(number, name, height, width, [])

    def annotation(self, entry: dict[str, Any]) -> None:
        if not self._labels:
            self._labels = {number: label for label, number in enumerate(sorted(self.categories), 1)}
        category, image = entry.get("category_id"), entry.get("image_id")
        if type(category) is not int or category not in self._labels:
            raise _Fault(f"has category_id {_brief(category)}, which is not a listed category")
        if type(image) is not int or image not in self.pictures:
            raise _Fault(f"is of image {_brief(image)}, which is not listed")
        picture = self.pictures[image]
        if picture is None:
            return
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise _Fault(f"has iscrowd {_brief(crowd)}, which is neither 0 nor 1")
        box = _box(entry.get("bbox"), picture)
        segmentation, mask = _segmentation(entry.get("segmentation"), picture)
        if not crowd and self.evaluated:
            _require_area(box, segmentation, picture)
        if not crowd:
            _compare(box, mask)
        picture.instances.append(Instance(self._labels[category], box, segmentation, int(crowd)))

    def faults_of_all(self) -> Iterator[str]:
        pictures = [picture for picture in self.pictures.values() if picture is not None]
        if all(instance.crowd for picture in pictures for instance in picture.instances):
            yield "it has no annotation that is not a crowd"
        for picture in pictures if self.evaluated else ():
            labels = Counter(instance.label for instance in picture.instances if not instance.crowd)
            if labels and max(labels.values()) > MOST_DETECTIONS:
                yield (
                    f"image {picture.id} has {max(labels.values())} annotations of one category, but average "
                    f"precision counts {MOST_DETECTIONS} detections; mark some as one crowd or cut the image"
                )


def _is_file_name(name: str) -> bool:
    """Whether a file of this name can lie in a folder: no path, and text that can be written."""
    return name != "" and not any(c in "/\0" or "\ud800" <= c <= "\udfff" for c in name)


def _identity(entry: dict[str, Any], earlier: dict[int, Any]) -> int:
    number = entry.get("id")
    if type(number) is not int or not -(2**63) <= number < 2**63:
        raise _Fault("has no id that is an integer of 64 bits")
    if number in earlier:
        raise _Fault("has the id of an earlier one")
    return number


def _side(entry: dict[str, Any], key: str) -> int:
    side = entry.get(key)
    if type(side) is not int or side < 1:
        raise _Fault(f"has the {key} {_brief(side)}, which is not an integer >= 1")
    return side


# ---- boxes -------------------------------------------------------------------------------------------------


def _box(box: Any, picture: Picture) -> list[float]:
    if type(box) is not list or len(box) != 4 or not NUMBERS.issuperset(map(type, box)):
        raise _Fault(f"has the bbox {_brief(box)}, which is not [x, y, width, height]")
    for start, length, limit in ((box[0], box[2], picture.width), (box[1], box[3], picture.height)):
        if not length >= 0:  # NaN, too
            raise _Fault(f"has the bbox {_brief(box)} with a side that is not a number >= 0")
        # without a sum: it may overflow
        if not -SLACK <= start <= limit + SLACK or not length <= limit + SLACK - start:
            raise _Fault(
                f"has the bbox {_brief(box)}, which leaves its image of {picture.width}x{picture.height} "
                "pixels; a bbox is [x, y, width, height]"
            )
    return box


def _compare(box: list[float], mask: Rectangle) -> None:
    """Refuse a box that is written in another way: it does not hold the mask, or its sides are corners."""
    left, top, right, bottom = mask
    x, y, width, height = box
    if max(x, y) > SLACK and all(abs(a - b) <= 1 for a, b in zip(box, mask, strict=True)):
        raise _Fault(f"has the bbox {_brief(box)}, which is [x1, y1, x2, y2], not [x, y, width, height]")
    common = max(0, min(right, x + width) - max(left, x)) * max(0, min(bottom, y + height) - max(top, y))
    if common < (right - left) * (bottom - top) / 2:
        spanned = [round(value, 2) for value in (left, top, right - left, bottom - top)]
        raise _Fault(f"has the bbox {_brief(box)}, but its segmentation spans {spanned}; a bbox is in pixels")


def _require_area(box: list[float], segmentation: Segmentation, picture: Picture) -> None:
    if min(box[2:]) < SMALLEST_SIDE:
        raise _Fault(f"has the bbox {_brief(box)} without area: no detection can match it; remove it")
    if not rle.area(run_length_code(segmentation, picture.height, picture.width)):
        raise _Fault("has a segmentation without a pixel: no detection can match it; remove it")
    x, y, width, height = box
    wide, high = min(x + width, picture.width) - max(x, 0), min(y + height, picture.height) - max(y, 0)
    if max(wide, 0) * max(high, 0) < INSIDE * width * height:
        raise _Fault(f"has the bbox {_brief(box)}, too much of it outside the image to be matched; clip it")


# ---- masks -------------------------------------------------------------------------------------------------


def _segmentation(shape: Any, picture: Picture) -> tuple[Segmentation, Rectangle]:
    """Return a sound segmentation and x1, y1, x2, y2 of what it covers of the image."""
    if type(shape) is list:
        return shape, _polygons(shape, picture)
    if type(shape) is dict and {"size", "counts"} <= shape.keys():
        return _run_lengths(shape, picture)
    raise _Fault("has a segmentation that is neither polygons nor a run-length code")


def _polygons(polygons: list[Any], picture: Picture) -> Rectangle:
    width, height = picture.width, picture.height
    lefts, tops, rights, bottoms = [], [], [], []
    outline = 0.0
    if polygons and NUMBERS.issuperset(map(type, polygons)):
        raise _Fault("has a segmentation that is one flat list; write a list of polygons, [[x1, y1, ...]]")
    for polygon in polygons or [[]]:
        if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2:
            raise _Fault("has a polygon that is not three or more pairs of x and y")
        if not NUMBERS.issuperset(map(type, polygon)):
            odd = next(value for value in polygon if type(value) not in NUMBERS)
            raise _Fault(f"has a polygon with {_brief(odd)}, which is not a number")
        xs, ys = polygon[::2], polygon[1::2]
        for values, limit in ((xs, width), (ys, height)):
            if not all(-limit <= value <= 2 * limit for value in values):
                odd = next(value for value in values if not -limit <= value <= 2 * limit)
                raise _Fault(
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
            raise _Fault(f"has polygons of {outline:.0f} pixels of outline, more than {LONGEST_OUTLINE}")
    corners = (min(lefts), min(tops), max(rights), max(bottoms))
    return tuple(min(max(value, 0), limit) for value, limit in zip(corners, (width, height) * 2, strict=True))


def _outline(polygon: list[float]) -> float:
    """Return the steps along a polygon's sides, in pixels: those of the longer way of each."""
    points = np.array(polygon, np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(1).sum())


def _run_lengths(code: dict[str, Any], picture: Picture) -> tuple[Segmentation, Rectangle]:
    size, counts = code["size"], code["counts"]
    if size != [picture.height, picture.width] or set(map(type, size)) != {int}:
        raise _Fault(f"has a mask of {_brief(size)} for an image of {[picture.height, picture.width]}")
    runs = _uncompressed(counts) if type(counts) is str else counts
    if type(runs) is not list or not {int}.issuperset(map(type, runs)) or (runs and min(runs) < 0):
        raise _Fault("has a run-length code whose counts are not integers >= 0")
    if sum(runs) != picture.height * picture.width:
        pixels = picture.height * picture.width
        raise _Fault(f"has a run-length code whose counts do not add up to the {pixels} pixels of its image")
    kept: Segmentation = {"size": size, "counts": counts}
    if 0 in runs[1:]:
        kept = {"size": size, "counts": _without_empty_runs(runs)}
    left, top, width, height = rle.toBbox(run_length_code(kept, *size)).tolist()
    return kept, (left, top, left + width, top + height)


def _uncompressed(code: str) -> list[int]:
    """Return the run lengths in a compressed code (`rleFrString` of pycocotools, which trusts it)."""
    runs: list[int] = []
    value = shift = 0
    for character in code:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise _Fault("has a run-length code that cannot be decoded")
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
        raise _Fault("has a run-length code that ends within a number")
    return runs


def _without_empty_runs(runs: list[int]) -> list[int]:
    """Join runs that only an empty one keeps apart: pycocotools stops at it when it compares masks."""
    joined, inside = [0], 0
    for place, run in enumerate(runs):
        if run and place % 2 == inside:
            joined[-1] += run
        elif run:
            joined.append(run)
            inside = 1 - inside
    return joined


def _brief(value: Any) -> str:
    """Return a value of any size and depth in a few words."""
    if isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(v, list | dict) for v in value)
    ):
        return f"a {type(value).__name__} of {len(value)} values"
    text = repr(value[:9] if isinstance(value, list) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
