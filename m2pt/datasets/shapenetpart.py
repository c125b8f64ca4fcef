"""ShapeNetPart as Point-MAE reads it (`shapenetcore_partanno_segmentation_benchmark_v0_normal`).

    synsetoffset2category.txt                                   lines `name<TAB>synset`
    train_test_split/shuffled_{train,val,test}_file_list.json   lists of `shape_data/<synset>/<id>`
    <synset>/<id>.txt                                           a point per line, `x y z nx ny nz part`

A category is its line in the first file, from 0. Parts are numbered over all categories; `PARTS` says
which belong to which. Normals are not used. Our "train" is the official train and val lists, our "val" the
official test list.
"""

import io
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2pt.datasets.augmentation import settings_of
from m2pt.datasets.faults import (
    absent_files,
    empty_classes,
    fault_of,
    file_faults,
    reading,
    refuse,
    repeated,
    sampled,
)
from m2pt.datasets.listings import read_lines
from m2pt.datasets.packed import PackedList
from m2pt.datasets.pointclouds import Augmentation, cloud_fault, unit_sphere
from m2pt.datasets.seeded import SeededDataset
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes, read_listing

CATEGORIES = "synsetoffset2category.txt"
LISTS = {
    "train": (
        "train_test_split/shuffled_train_file_list.json",
        "train_test_split/shuffled_val_file_list.json",
    ),
    "val": ("train_test_split/shuffled_test_file_list.json",),
}
COLUMNS = 7

LARGEST_SHAPE = 1 << 26
"""Bytes of a shape's file; the official ones have 0.2 MB."""

LONGEST_LINE = 1000
"""Bytes of a line that are looked at before a training."""

PARTS = {
    "Airplane": range(0, 4),
    "Bag": range(4, 6),
    "Cap": range(6, 8),
    "Car": range(8, 12),
    "Chair": range(12, 16),
    "Earphone": range(16, 19),
    "Guitar": range(19, 22),
    "Knife": range(22, 24),
    "Lamp": range(24, 28),
    "Laptop": range(28, 30),
    "Motorbike": range(30, 36),
    "Mug": range(36, 38),
    "Pistol": range(38, 41),
    "Rocket": range(41, 44),
    "Skateboard": range(44, 47),
    "Table": range(47, 50),
}
"""The official part numbers of each category."""

NUM_CATEGORIES = len(PARTS)
NUM_PARTS = 50


class Reader(SeededDataset):
    """Shapes: points float32 (points, 3), category, part numbers int64 (points,).

    The whole shape is centred and scaled to the unit sphere; then `points` of its points are drawn with
    replacement, in evaluation too, as the official code does. `augmentation` has the optional keys of
    `Augmentation`; `None` leaves the points where they are.

    Raises:
        InputError: categories or a list are missing or malformed or `num_classes` is not the layout's 50
            parts; when an item is read, its file is unreadable or has a part of another category.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        points: int,
        seed: int = 0,
        augmentation: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(seed)
        refuse(_part_count_faults(num_classes))
        self._parts = [PARTS[name] for name in _categories(root)]
        self._items = PackedList(_items(root, split))
        self._root = root
        self._points = points
        self._augmentation = settings_of(Augmentation, augmentation)

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, int, Tensor]:
        """Read shape `index`, normalise, draw points and augment."""
        category, name = self._items[index]
        points, parts = read_shape(self._root / name, self._parts[category])
        drawn = np.random.randint(len(points), size=self._points)
        view = unit_sphere(points)[drawn]
        if self._augmentation is not None:
            view = self._augmentation(view)
        return torch.from_numpy(view), category, torch.from_numpy(parts[drawn])


def read_shape(path: Path, allowed: range) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return points (n, 3) and part numbers (n,) of a text file.

    Raises:
        InputError: the file is missing, empty, too large or not seven numbers per line, its points
            have no shape (see `cloud_fault`), or a part is not a whole number in `allowed`, its category's.
    """
    rows = _parse_rows(path, read_bytes(path, limit=LARGEST_SHAPE))
    points, labels = rows[:, :3], rows[:, -1]
    fault = cloud_fault(points)
    if not fault and not (labels == np.rint(labels)).all():
        fault = f"holds the part {labels[labels != np.rint(labels)][0]:g}, which is not a whole number"
    if not fault and not (allowed.start <= labels.min() and labels.max() < allowed.stop):
        fault = (
            f"has parts numbered {labels.min():g} to {labels.max():g}; those of its category are "
            f"{allowed.start} to {allowed.stop - 1}"
        )
    if fault:
        raise InputError(f"{path} {fault}.")
    return points, labels.astype(np.int64)


def classes(root: Path) -> list[str]:
    """Return a name for each part number: its category, and which of the category's parts it is."""
    return [f"{category} {part}" for category, parts in PARTS.items() for part in range(len(parts))]


def counts(root: Path) -> dict[str, int]:
    """Return the number of shapes of each split."""
    return {split: len(_items(root, split)) for split in LISTS}


def files(root: Path) -> Iterator[Path]:
    """Yield the categories, the lists and every shape that they name."""
    yield root / CATEGORIES
    for split, lists in LISTS.items():
        yield from (root / relative for relative in lists)
        yield from (root / name for _, name in _items(root, split))


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every fault: categories, lists, missing files, empty categories, columns, coordinates, parts.

    The quick form reads all lines of a sample of each split (`faults.QUICK_SAMPLE`), of the others the first.
    """
    categories, faults = _read_categories(root)
    faults += _part_count_faults(num_classes)
    seen: dict[str, Path] = {}
    for split, lists in LISTS.items():
        items: list[tuple[int, str]] = []
        for relative in lists:
            found, list_faults = _read_list(root / relative, categories)
            names = [name for _, name in found]
            absent = absent_files(root, names, root / relative)
            faults += [*list_faults, *absent.values(), *repeated(names, root / relative, seen)]
            items += [item for item in found if item[1] not in absent]
        faults += empty_classes((category for category, _ in items), list(categories), root / lists[0])
        parts = {root / name: PARTS[list(categories)[category]] for category, name in items}
        whole = {path: parts[path] for path in sampled(list(parts), full=full)}
        faults += file_faults(list(parts), partial(_file_fault, whole=whole), what=f"shapenetpart {split}")
    return faults


def _file_fault(path: Path, whole: Mapping[Path, range]) -> str | None:
    return _content_fault(path, whole) if path in whole else fault_of(_read_first_line, path)


def _categories(root: Path) -> list[str]:
    categories, faults = _read_categories(root)
    refuse(faults)
    return list(categories)


def _items(root: Path, split: str) -> list[tuple[int, str]]:
    """Return (category, path of the shape's file) of every shape of a split."""
    categories, faults = _read_categories(root)
    refuse(faults)
    items: list[tuple[int, str]] = []
    for relative in LISTS[split]:
        found, faults = _read_list(root / relative, categories)
        refuse(faults)
        items += found
    return items


def _read_categories(root: Path) -> tuple[dict[str, str], list[str]]:
    """Return {name: synset} of every good line, in their order, and a fault for every other."""
    path = root / CATEGORIES
    try:
        lines = read_lines(path)
    except InputError as error:
        return {}, [str(error)]
    categories: dict[str, str] = {}
    faults = [] if lines else [f"{path} is empty: it should have lines `name<TAB>synset`."]
    for number, line in enumerate(lines, start=1):
        match line.split():
            case [name, synset] if name in PARTS and synset in categories.values() and name not in categories:
                faults.append(f"{path} line {number} gives {name} the synset {synset} of another category.")
            case [name, synset] if name in PARTS and name not in categories:
                categories[name] = synset
            case [name, _] if name in PARTS:
                faults.append(f"{path} line {number} names the category {name} again.")
            case _:
                faults.append(
                    f"{path} line {number} is {line!r}, not `name<TAB>synset` with the name of a category "
                    f"({', '.join(PARTS)})."
                )
    return categories, faults


def _read_list(path: Path, categories: Mapping[str, str]) -> tuple[list[tuple[int, str]], list[str]]:
    """Return (category, path of the shape's file) of every good entry and a fault for every other."""
    try:
        entries = read_listing(path)
    except InputError as error:
        return [], [str(error)]
    if not isinstance(entries, list) or not entries:
        return [], [f"{path} is not a list with entries `shape_data/<synset>/<id>`."]
    rank = {synset: index for index, synset in enumerate(categories.values())}
    items, faults = [], []
    for entry in entries:
        match entry.split("/") if isinstance(entry, str) else ():
            case ["shape_data", synset, model] if synset in rank and model:
                items.append((rank[synset], f"{synset}/{model}.txt"))
            case ["shape_data", synset, _]:
                faults.append(f"{path} lists {entry}, but {CATEGORIES} has no synset {synset}.")
            case _:
                faults.append(f"{path} lists {entry!r}, not `shape_data/<synset>/<id>`.")
    return items, faults


def _parse_rows(path: Path, content: bytes) -> NDArray[np.float32]:
    """Parse the lines of a shape; (n, 7).

    Raises:
        InputError: they are not seven numbers each, or there are none.
    """
    if not content.strip():
        raise InputError(f"{path} is empty, without rows of {COLUMNS} numbers: `x y z nx ny nz part`.")
    with reading(path, "rows of numbers"):
        rows = np.loadtxt(io.StringIO(content.decode()), dtype=np.float32, ndmin=2, comments=None)
    if rows.shape[1] != COLUMNS:
        raise InputError(
            f"{path} has {len(rows)} rows of {rows.shape[1]} numbers, not rows of {COLUMNS}: "
            "`x y z nx ny nz part`."
        )
    return rows


def _part_count_faults(num_classes: int) -> list[str]:
    if num_classes == NUM_PARTS:
        return []
    return [f"num_classes is {num_classes}, but the parts of ShapeNetPart are numbered up to {NUM_PARTS}."]


def _read_first_line(path: Path) -> None:
    with reading(path, "rows of numbers"), path.open("rb") as file:
        line = file.readline(LONGEST_LINE)
    _parse_rows(path, line)


def _content_fault(path: Path, parts: Mapping[Path, range]) -> str | None:
    return fault_of(read_shape, path, parts[path])
