"""PartNet's semantic segmentation as its authors publish it: one dataset per category and level, in HDF5.

    sem_seg_h5/<Category>-<level>/{train,val,test}_files.txt    per line the name of an HDF5 file beside it
    sem_seg_h5/<Category>-<level>/<name>.h5                     n shapes of N points (officially 10,000):
        data (n, N, 3) float, data_num (n,) valid points, label_seg (n, N) integer

A `<Category>-<level>` is called a subset here. It has its own part classes; 0 is unlabeled. Our "val" is
the official test list; the official validation list is not used and may be missing.
"""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2pt.datasets.augmentations import ShapeAugmentation
from m2pt.datasets.base import SeededDataset
from m2pt.datasets.checks import check_files, duplicates, error_of, missing_files, raise_problems
from m2pt.datasets.pointclouds import cloud_problem, random_clouds, sample_rows, scale_and_shift, unit_sphere
from m2pt.datasets.reading import read_lines, reading, regular_file
from m2pt.errors import InputError

FOLDER = "sem_seg_h5"
LISTS = {"train": "train_files.txt", "val": "test_files.txt"}
UNUSED_LIST = "val_files.txt"
UNLABELED = 0

LARGEST = 1 << 20
"""Most shapes of a file and points of a shape: the header of a 10 KB file can declare any number."""

BLOCK = 1 << 24
"""Points that the full check reads per chunk."""


class Reader(SeededDataset):
    """Shapes of one subset: points float32 (points, 3) and classes int64 (points,), 0 where unlabeled.

    Points are centered and scaled to the unit sphere. With `augmentation` they are a random sample of the
    stored points; without it they are taken at equal steps: all of them in their order if `points` is their
    number. `num_classes` counts the unlabeled class.

    Raises:
        InputError: the subset, its list or a file of the list is missing or malformed, or a shape has fewer
            than `points` points; when a sample is read, it has a class that is not below `num_classes`.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        subset: str,
        num_classes: int,
        points: int,
        seed: int = 0,
        augmentation: ShapeAugmentation | None = None,
    ) -> None:
        super().__init__(seed)
        folder = root / FOLDER / subset
        paths, problems = _read_list(folder / LISTS[split])
        raise_problems([*problems, *filter(None, (error_of(_read_header, path, points) for path in paths))])
        self._files = OpenFiles(paths)
        self._ends = np.cumsum([_count(path) for path in paths])
        self._num_classes = num_classes
        self._points = points
        self._augmentation = augmentation

    def __len__(self) -> int:
        return int(self._ends[-1])

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Read shape `index`, take a sample of its points, normalize and augment."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        file = self._files[number]
        row = index - int(self._ends[number - 1] if number else 0)
        path = self._files.paths[number]
        with reading(path, "HDF5"):
            total = int(file["data_num"][row])
            cloud, labels = file["data"][row, :total], file["label_seg"][row, :total]
        if problem := _shape_problem(cloud, labels, self._num_classes):
            raise InputError(f"{path} shape {row} {problem}.")
        rows = sample_rows(total, self._points, random=self._augmentation is not None)
        view = unit_sphere(cloud.astype(np.float32)[rows])
        if self._augmentation is not None:
            view = scale_and_shift(view, self._augmentation)
        return torch.from_numpy(view), torch.from_numpy(labels[rows].astype(np.int64))


class OpenFiles:
    """HDF5 files, each opened on first access, and again in every process.

    An open file must not be inherited by a worker: both processes would move the same file offset.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self._opened: dict[int, h5py.File] = {}
        self._process = os.getpid()

    def __getitem__(self, number: int) -> h5py.File:
        """Return file `number`, open for reading."""
        if self._process != os.getpid():
            self._opened, self._process = {}, os.getpid()
        if number not in self._opened:
            path = regular_file(self.paths[number])
            with reading(path, "HDF5"):
                self._opened[number] = h5py.File(path)
        return self._opened[number]

    def __reduce__(self) -> tuple[type["OpenFiles"], tuple[list[Path]]]:
        """Pickle the paths alone."""
        return OpenFiles, (self.paths,)


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: ShapeAugmentation | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return random clouds (B, points, 3) and classes (B, points)."""
    clouds = random_clouds(batch_size, input["points"], device)
    return clouds, torch.randint(num_classes, (batch_size, input["points"]), device=device)


def classes(root: Path) -> list[str]:
    """Return the subsets: each has its own part classes, which are not named in these files."""
    return [path.name for path in _subset_folders(root)]


def counts(root: Path) -> dict[str, int]:
    """Return the number of shapes of each split, over all subsets."""
    return {
        split: sum(_count(path) for folder in _subset_folders(root) for path in _listed(folder / relative))
        for split, relative in LISTS.items()
    }


def files(root: Path) -> Iterator[Path]:
    """Yield the lists of every subset and every file in them."""
    for folder in _subset_folders(root):
        for relative in _lists(folder):
            yield folder / relative
            yield from _listed(folder / relative)


def check(root: Path, *, num_classes: int | Mapping[str, int], full: bool) -> list[str]:
    """Return every problem: subsets, lists, missing files, arrays of the wrong name, shape or type.

    The full check also reads the arrays: numbers of points beyond the stored ones, coordinates that are not
    finite, classes out of range. The reader checks that shapes have the points that a recipe needs.

    Args:
        root: folder of the dataset.
        num_classes: number of classes, including the unlabeled one, of each subset that is needed; an
            integer bounds the classes of all subsets present.
        full: whether to read the arrays.
    """
    present = classes(root)
    if not present:
        return [f"{root / FOLDER} has no folder `<Category>-<level>`."]
    wanted = num_classes if isinstance(num_classes, Mapping) else dict.fromkeys(present, num_classes)
    problems: list[str] = []
    for subset, number in wanted.items():
        listed: dict[str, Path] = {}
        folder = root / FOLDER / subset
        if subset not in present:
            problems.append(f"{folder} is missing; the subsets present are {', '.join(present)}.")
            continue
        for relative in _lists(folder):
            paths, found = _read_list(folder / relative)
            names = [path.name for path in paths]
            absent = missing_files(folder, names, folder / relative)
            sound = [path for path in paths if path.name not in absent]
            labeled: list[Path] = []
            examine = partial(_read_content, num_classes=number, labeled=labeled) if full else _read_header
            found += [*absent.values(), *duplicates(names, folder / relative, listed)]
            found += check_files(sound, partial(error_of, examine), what=f"partnet {subset}")
            if full and not found and not labeled:
                found.append(f"{folder / relative} lists no shape with a labeled point.")
            problems += found
    return problems


def _subset_folders(root: Path) -> list[Path]:
    folder = root / FOLDER
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _lists(folder: Path) -> list[str]:
    """Return the names of the lists that a subset must have, and of the unused one if it exists."""
    return [*LISTS.values(), *([UNUSED_LIST] if (folder / UNUSED_LIST).is_file() else [])]


def _listed(path: Path) -> list[Path]:
    paths, problems = _read_list(path)
    raise_problems(problems)
    return paths


def _read_list(path: Path) -> tuple[list[Path], list[str]]:
    """Return the path of every valid line and a problem for every other."""
    try:
        lines = read_lines(path)
    except InputError as error:
        return [], [str(error)]
    problems = [] if lines else [f"{path} is empty: it must have the name of an HDF5 file in each line."]
    paths = []
    for number, line in enumerate(lines, start=1):
        name = line.strip().removeprefix("./")
        if name.endswith(".h5") and "/" not in name:
            paths.append(path.parent / name)
        else:
            problems.append(
                f"{path} line {number} must be the name of an HDF5 file beside the list, got {line!r}."
            )
    return paths, problems


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a file after checking its arrays; errors of HDF5 within the block name the file."""
    with reading(regular_file(path), "HDF5"), h5py.File(path) as file:
        if problem := _layout_problem(file):
            raise InputError(f"{path} {problem}.")
        yield file


def _count(path: Path) -> int:
    with _opened(path) as file:
        return len(file["data"])


def _read_header(path: Path, points: int | None = None) -> None:
    """Check the headers of a file's arrays and, if given, that all shapes have `points` points."""
    with _opened(path) as file:
        if points is not None and (problem := _number_problem(file, points)):
            raise InputError(f"{path} {problem}.")


def _read_content(path: Path, *, num_classes: int, labeled: list[Path]) -> None:
    """Check all shapes; append `path` to `labeled` for each shape with a labeled point."""
    with _opened(path) as file:
        if problem := _number_problem(file):
            raise InputError(f"{path} {problem}.")
        count, points, _ = file["data"].shape
        step = max(1, BLOCK // points)
        for start in range(0, count, step):
            block = slice(start, start + step)
            shapes = zip(file["data"][block], file["label_seg"][block], file["data_num"][block], strict=True)
            for row, (cloud, labels, total) in enumerate(shapes, start=start):
                if problem := _shape_problem(cloud[:total], labels[:total], num_classes):
                    raise InputError(f"{path} shape {row} {problem}.")
                if (labels[:total] != UNLABELED).any():
                    labeled.append(path)


def _layout_problem(file: h5py.File) -> str | None:
    """Check names, shapes and types of the arrays, which are in their headers."""
    for key in ("data", "data_num", "label_seg"):
        link = file.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink) or not isinstance(file[key], h5py.Dataset):
            return f"has no array {key!r}, or only a link to one"
        if file[key].is_virtual or file[key].external:
            return f"stores its array {key!r} in another file"
        if file[key].chunks and math.prod(file[key].chunks) > 3 * BLOCK:
            return f"stores its array {key!r} in chunks of shape {file[key].chunks}, too large to read"
    shapes: dict[str, tuple[int, ...]] = {
        key: file[key].shape or () for key in ("data", "data_num", "label_seg")
    }
    count, points, _ = shapes["data"] if len(shapes["data"]) == 3 else (0, 0, 0)
    if not (count and points) or shapes != {
        "data": (count, points, 3),
        "data_num": (count,),
        "label_seg": (count, points),
    }:
        return f"must have arrays data (n, N, 3), data_num (n,), label_seg (n, N), got shapes {shapes}"
    if max(count, points) > LARGEST:
        return f"declares {count} shapes of {points} points, more than {LARGEST} of either"
    kinds = "".join(file[key].dtype.kind for key in shapes)
    if kinds[0] != "f" or not set(kinds[1:]) <= set("iu"):
        return "must have floats in data and integers in data_num and label_seg"
    return None


def _number_problem(file: h5py.File, points: int = 1) -> str | None:
    """Check that the number of valid points of each shape is at least `points` and at most those stored."""
    numbers, stored = file["data_num"][...], file["data"].shape[1]
    wrong = np.flatnonzero((numbers < points) | (numbers > stored))
    if not len(wrong):
        return None
    number = int(numbers[wrong[0]])
    if number > stored or number < 1:
        return f"shape {wrong[0]}: data_num must be 1 to the {stored} stored points, got {number}"
    return f"shape {wrong[0]} has {number} points, fewer than points = {points}"


def _shape_problem(cloud: NDArray[Any], labels: NDArray[Any], num_classes: int) -> str | None:
    """Return the problem of the valid points of one shape and their classes, or None."""
    if problem := cloud_problem(cloud):
        return problem
    lowest, highest = labels.min(), labels.max()
    if lowest >= 0 and highest < num_classes:
        return None
    return f"has classes {lowest} to {highest}, but num_classes = {num_classes} allows 0 to {num_classes - 1}"
