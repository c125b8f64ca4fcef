"""ShapeNetPart as Point-MAE reads it (`shapenetcore_partanno_segmentation_benchmark_v0_normal`).

    synsetoffset2category.txt                                   lines `name<TAB>synset`
    train_test_split/shuffled_{train,val,test}_file_list.json   lists of `shape_data/<synset>/<id>`
    <synset>/<id>.txt                                           a point per line, `x y z nx ny nz part`

A category's index is its line in the first file, from 0. Parts are numbered over all categories, see
`PARTS`. Normals are not used. Our "train" is the official train and val lists, our "val" the official test
list.
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

from m2pt.datasets.augmentations import ShapeAugmentation
from m2pt.datasets.base import PackedList, SeededDataset
from m2pt.datasets.checks import (
    check_files,
    duplicates,
    empty_classes,
    error_of,
    missing_files,
    quick_sample,
    raise_problems,
)
from m2pt.datasets.pointclouds import cloud_problem, random_clouds, scale_and_shift, unit_sphere
from m2pt.datasets.reading import read_lines, reading
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
"""Most bytes of a shape's file; the official ones have 0.2 MB."""

LONGEST_LINE = 1000
"""Bytes of a file's first line that the quick check reads."""

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

    The whole shape is centered and scaled to the unit sphere; then `points` of its points are drawn with
    replacement, in evaluation too, as the official code does.

    Raises:
        InputError: the categories or a list are missing or malformed, or `num_classes` is not 50; when a
            sample is read, its file is unreadable or has a part of another category.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        points: int,
        seed: int = 0,
        augmentation: ShapeAugmentation | None = None,
    ) -> None:
        super().__init__(seed)
        raise_problems(_part_count_problems(num_classes))
        self._parts = [PARTS[name] for name in _categories(root)]
        self._items = PackedList(_items(root, split))
        self._root = root
        self._points = points
        self._augmentation = augmentation

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, int, Tensor]:
        """Read shape `index`, normalize, draw points and augment."""
        category, name = self._items[index]
        points, parts = read_shape(self._root / name, self._parts[category])
        drawn = np.random.randint(len(points), size=self._points)
        view = unit_sphere(points)[drawn]
        if self._augmentation is not None:
            view = scale_and_shift(view, self._augmentation)
        return torch.from_numpy(view), category, torch.from_numpy(parts[drawn])


def read_shape(path: Path, allowed: range) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return points (n, 3) and part numbers (n,) of a text file.

    Raises:
        InputError: the file is missing, empty, too large or not seven numbers per line, its points cannot be
            normalized (see `cloud_problem`), or a part is not an integer in `allowed`.
    """
    rows = _parse_rows(path, read_bytes(path, limit=LARGEST_SHAPE))
    points, labels = rows[:, :3], rows[:, -1]
    problem = cloud_problem(points)
    if not problem and not (labels == np.rint(labels)).all():
        problem = f"has the part number {labels[labels != np.rint(labels)][0]:g}, which must be an integer"
    if not problem and not (allowed.start <= labels.min() and labels.max() < allowed.stop):
        problem = (
            f"has part numbers {labels.min():g} to {labels.max():g}, but its category has {allowed.start} to "
            f"{allowed.stop - 1}"
        )
    if problem:
        raise InputError(f"{path} {problem}.")
    return points, labels.astype(np.int64)


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: ShapeAugmentation | None,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return random clouds (B, points, 3), categories (B,) and part numbers (B, points)."""
    parts = torch.randint(num_classes, (batch_size, input["points"]), device=device)
    clouds = random_clouds(batch_size, input["points"], device)
    return clouds, torch.randint(NUM_CATEGORIES, (batch_size,), device=device), parts


def classes(root: Path) -> list[str]:
    """Return a name for each part number: its category, and its number within the category."""
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
    """Return every problem: categories, lists, missing files, empty categories, columns, coordinates, parts.

    The quick check reads a sample of each split (`checks.QUICK_SAMPLE`), and the first line of the others.
    """
    categories, problems = _read_categories(root)
    problems += _part_count_problems(num_classes)
    listed: dict[str, Path] = {}
    for split, lists in LISTS.items():
        items: list[tuple[int, str]] = []
        for relative in lists:
            found, list_problems = _read_list(root / relative, categories)
            names = [name for _, name in found]
            absent = missing_files(root, names, root / relative)
            problems += [*list_problems, *absent.values(), *duplicates(names, root / relative, listed)]
            items += [item for item in found if item[1] not in absent]
        problems += empty_classes((category for category, _ in items), list(categories), root / lists[0])
        parts = {root / name: PARTS[list(categories)[category]] for category, name in items}
        whole = {path: parts[path] for path in quick_sample(list(parts), full=full)}
        check_file = partial(_file_problem, whole=whole)
        what = f"shapenetpart {split}"
        problems += check_files(list(parts), check_file, what=what, training=split == "train")
    return problems


def _file_problem(path: Path, whole: Mapping[Path, range]) -> str | None:
    return _content_problem(path, whole) if path in whole else error_of(_read_first_line, path)


def _categories(root: Path) -> list[str]:
    categories, problems = _read_categories(root)
    raise_problems(problems)
    return list(categories)


def _items(root: Path, split: str) -> list[tuple[int, str]]:
    """Return (category, path of the shape's file) of every shape of a split."""
    categories, problems = _read_categories(root)
    raise_problems(problems)
    items: list[tuple[int, str]] = []
    for relative in LISTS[split]:
        found, problems = _read_list(root / relative, categories)
        raise_problems(problems)
        items += found
    return items


def _read_categories(root: Path) -> tuple[dict[str, str], list[str]]:
    """Return {name: synset} of every valid line, in order, and a problem for every other."""
    path = root / CATEGORIES
    try:
        lines = read_lines(path)
    except InputError as error:
        return {}, [str(error)]
    categories: dict[str, str] = {}
    problems = [] if lines else [f"{path} is empty: it must have lines `name<TAB>synset`."]
    for number, line in enumerate(lines, start=1):
        match line.split():
            case [name, synset] if name in PARTS and synset in categories.values() and name not in categories:
                problems.append(f"{path} line {number} gives {name} the synset {synset} of another category.")
            case [name, synset] if name in PARTS and name not in categories:
                categories[name] = synset
            case [name, _] if name in PARTS:
                problems.append(f"{path} line {number} has the duplicate category {name}.")
            case _:
                problems.append(
                    f"{path} line {number} must be `name<TAB>synset`, got {line!r}; the names are "
                    f"{', '.join(PARTS)}."
                )
    return categories, problems


def _read_list(path: Path, categories: Mapping[str, str]) -> tuple[list[tuple[int, str]], list[str]]:
    """Return (category, path of the shape's file) of every valid entry and a problem for every other."""
    try:
        entries = read_listing(path)
    except InputError as error:
        return [], [str(error)]
    if not isinstance(entries, list) or not entries:
        return [], [f"{path} must be a list with entries `shape_data/<synset>/<id>`."]
    rank = {synset: index for index, synset in enumerate(categories.values())}
    items, problems = [], []
    for entry in entries:
        match entry.split("/") if isinstance(entry, str) else ():
            case ["shape_data", synset, model] if synset in rank and model:
                items.append((rank[synset], f"{synset}/{model}.txt"))
            case ["shape_data", synset, _]:
                problems.append(f"{path} lists {entry}, but {CATEGORIES} has no synset {synset}.")
            case _:
                problems.append(f"{path}: entries must be `shape_data/<synset>/<id>`, got {entry!r}.")
    return items, problems


def _parse_rows(path: Path, content: bytes) -> NDArray[np.float32]:
    """Parse the lines of a shape; (n, 7).

    Raises:
        InputError: the lines are not seven numbers each, or there are none.
    """
    if not content.strip():
        raise InputError(f"{path} is empty: it must have rows of {COLUMNS} numbers, `x y z nx ny nz part`.")
    with reading(path, "rows of numbers"):
        rows = np.loadtxt(io.StringIO(content.decode()), dtype=np.float32, ndmin=2, comments=None)
    if rows.shape[1] != COLUMNS:
        raise InputError(
            f"{path} must have rows of {COLUMNS} numbers, `x y z nx ny nz part`, got {len(rows)} rows of "
            f"{rows.shape[1]}."
        )
    return rows


def _part_count_problems(num_classes: int) -> list[str]:
    if num_classes == NUM_PARTS:
        return []
    return [f"num_classes = {num_classes}, but ShapeNetPart has {NUM_PARTS} parts."]


def _read_first_line(path: Path) -> None:
    with reading(path, "rows of numbers"), path.open("rb") as file:
        line = file.readline(LONGEST_LINE)
    _parse_rows(path, line)


def _content_problem(path: Path, parts: Mapping[Path, range]) -> str | None:
    return error_of(read_shape, path, parts[path])
