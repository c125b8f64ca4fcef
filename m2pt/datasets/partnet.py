"""PartNet's semantic segmentation as its authors publish it: one dataset per category and level, in HDF5.

    sem_seg_h5/<Category>-<level>/{train,val,test}_files.txt    a name of an HDF5 file beside it per line
    sem_seg_h5/<Category>-<level>/<name>.h5                     of n shapes with N points (official 10,000):
        data (n, N, 3) float, data_num (n,) points that count, label_seg (n, N) integer

A `<Category>-<level>` is called a subset here. It has part classes of its own; 0 is what belongs to none of
them, unlabelled. Our "val" is the official test list; the official validation list is not used and may be
absent.
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

from m2pt.datasets.augmentation import settings_of
from m2pt.datasets.faults import absent_files, fault_of, file_faults, reading, refuse, regular_file, repeated
from m2pt.datasets.listings import read_lines
from m2pt.datasets.pointclouds import Augmentation, cloud_fault, sample_rows, unit_sphere
from m2pt.datasets.seeded import SeededDataset
from m2pt.errors import InputError

FOLDER = "sem_seg_h5"
LISTS = {"train": "train_files.txt", "val": "test_files.txt"}
UNUSED_LIST = "val_files.txt"
UNLABELLED = 0

LARGEST = 1 << 20
"""Shapes of a file and points of a shape. A file of 10 KB can announce any number of both."""

BLOCK = 1 << 24
"""Points that are read at a time when a file is checked in full."""


class Reader(SeededDataset):
    """Shapes of one subset: points float32 (points, 3) and classes int64 (points,), 0 where unlabelled.

    Points are centred and scaled to the unit sphere. `augmentation` has the optional keys of `Augmentation`,
    and takes a random sample of the stored points; `None` takes points at equal steps, which are all of them
    in their order if `points` is their number. `num_classes` counts the unlabelled class.

    Raises:
        InputError: the subset, its list or a file of the list is missing or malformed, or a shape has fewer
            than `points` points; when an item is read, the shape has a class that is not below `num_classes`.
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
        augmentation: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(seed)
        folder = root / FOLDER / subset
        paths, faults = _read_list(folder / LISTS[split])
        refuse([*faults, *filter(None, (fault_of(_read_header, path, points) for path in paths))])
        self._files = OpenFiles(paths)
        self._ends = np.cumsum([_count(path) for path in paths])
        self._num_classes = num_classes
        self._points = points
        self._augmentation = settings_of(Augmentation, augmentation)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Read shape `index`, take a sample of its points, normalise and augment."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        file = self._files[number]
        row = index - int(self._ends[number - 1] if number else 0)
        path = self._files.paths[number]
        with reading(path, "HDF5"):
            total = int(file["data_num"][row])
            cloud, labels = file["data"][row, :total], file["label_seg"][row, :total]
        if fault := _shape_fault(cloud, labels, self._num_classes):
            raise InputError(f"{path} shape {row} {fault}.")
        rows = sample_rows(total, self._points, random=self._augmentation is not None)
        view = unit_sphere(cloud.astype(np.float32)[rows])
        if self._augmentation is not None:
            view = self._augmentation(view)
        return torch.from_numpy(view), torch.from_numpy(labels[rows].astype(np.int64))


class OpenFiles:
    """HDF5 files, each opened when it is first asked for, in every process anew.

    An open file must not be carried over to a worker: what a fork shares would be read from by both.
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


def classes(root: Path) -> list[str]:
    """Return the subsets; part classes belong to a subset each and have no names in these files."""
    return [path.name for path in _subset_folders(root)]


def counts(root: Path) -> dict[str, int]:
    """Return the number of shapes of each split, over all subsets."""
    return {
        split: sum(_count(path) for folder in _subset_folders(root) for path in _listed(folder / relative))
        for split, relative in LISTS.items()
    }


def files(root: Path) -> Iterator[Path]:
    """Yield the lists of every subset and every file that they name."""
    for folder in _subset_folders(root):
        for relative in _lists(folder):
            yield folder / relative
            yield from _listed(folder / relative)


def check(root: Path, *, num_classes: int | Mapping[str, int], full: bool) -> list[str]:
    """Return every fault: subsets, lists, missing files, arrays of the wrong name, shape or type.

    If `full`, the arrays are read: numbers of points that are not there, and, of those that count,
    coordinates that are not finite and classes that are too high. Whether there are as many points as a
    recipe asks for is the reader's to check, before a training.

    Args:
        root: folder of the dataset.
        num_classes: the number of classes, the unlabelled one among them, of each subset that is needed;
            a number alone bounds the classes of all subsets that are there.
        full: read the arrays.
    """
    present = classes(root)
    if not present:
        return [f"{root / FOLDER} holds no folder `<Category>-<level>`."]
    wanted = num_classes if isinstance(num_classes, Mapping) else dict.fromkeys(present, num_classes)
    faults: list[str] = []
    for subset, number in wanted.items():
        seen: dict[str, Path] = {}
        folder = root / FOLDER / subset
        if subset not in present:
            faults.append(f"{folder} is missing; the subsets there are {', '.join(present)}.")
            continue
        for relative in _lists(folder):
            paths, found = _read_list(folder / relative)
            names = [path.name for path in paths]
            absent = absent_files(folder, names, folder / relative)
            sound = [path for path in paths if path.name not in absent]
            labelled: list[Path] = []
            examine = partial(_read_content, num_classes=number, labelled=labelled) if full else _read_header
            found += [*absent.values(), *repeated(names, folder / relative, seen)]
            found += file_faults(sound, partial(fault_of, examine), what=f"partnet {subset}")
            if full and not found and not labelled:
                found.append(f"{folder / relative} lists no shape with a labelled point.")
            faults += found
    return faults


def _subset_folders(root: Path) -> list[Path]:
    folder = root / FOLDER
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _lists(folder: Path) -> list[str]:
    """Return the names of the lists that a subset must have, and of the unused one if it is there."""
    return [*LISTS.values(), *([UNUSED_LIST] if (folder / UNUSED_LIST).is_file() else [])]


def _listed(path: Path) -> list[Path]:
    paths, faults = _read_list(path)
    refuse(faults)
    return paths


def _read_list(path: Path) -> tuple[list[Path], list[str]]:
    """Return the path of every good line and a fault for every other."""
    try:
        lines = read_lines(path)
    except InputError as error:
        return [], [str(error)]
    faults = [] if lines else [f"{path} is empty: it should have a name of an HDF5 file in each line."]
    paths = []
    for number, line in enumerate(lines, start=1):
        name = line.strip().removeprefix("./")
        if name.endswith(".h5") and "/" not in name:
            paths.append(path.parent / name)
        else:
            faults.append(f"{path} line {number} is {line!r}, not the name of an HDF5 file beside the list.")
    return paths, faults


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a file whose arrays are as they should be; what its content does to HDF5 names the file."""
    with reading(regular_file(path), "HDF5"), h5py.File(path) as file:
        if fault := _layout_fault(file):
            raise InputError(f"{path} {fault}.")
        yield file


def _count(path: Path) -> int:
    with _opened(path) as file:
        return len(file["data"])


def _read_header(path: Path, points: int | None = None) -> None:
    """Look at a file's arrays as its headers tell and, if `points` are asked for, at their number."""
    with _opened(path) as file:
        if points is not None and (fault := _number_fault(file, points)):
            raise InputError(f"{path} {fault}.")


def _read_content(path: Path, *, num_classes: int, labelled: list[Path]) -> None:
    """Read all shapes; a file that has a labelled point is added to `labelled`."""
    with _opened(path) as file:
        if fault := _number_fault(file):
            raise InputError(f"{path} {fault}.")
        count, points, _ = file["data"].shape
        step = max(1, BLOCK // points)
        for start in range(0, count, step):
            block = slice(start, start + step)
            shapes = zip(file["data"][block], file["label_seg"][block], file["data_num"][block], strict=True)
            for row, (cloud, labels, total) in enumerate(shapes, start=start):
                if fault := _shape_fault(cloud[:total], labels[:total], num_classes):
                    raise InputError(f"{path} shape {row} {fault}.")
                if (labels[:total] != UNLABELLED).any():
                    labelled.append(path)


def _layout_fault(file: h5py.File) -> str | None:
    """Compare names, shapes and types of the arrays, which their headers tell, with what they should be."""
    for key in ("data", "data_num", "label_seg"):
        link = file.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink) or not isinstance(file[key], h5py.Dataset):
            return f"has no array {key!r} of its own"
        if file[key].is_virtual or file[key].external:
            return f"has its array {key!r} in another file"
        if file[key].chunks and math.prod(file[key].chunks) > 3 * BLOCK:
            return f"has its array {key!r} in pieces of shape {file[key].chunks}, too large to read"
    shapes: dict[str, tuple[int, ...]] = {
        key: file[key].shape or () for key in ("data", "data_num", "label_seg")
    }
    count, points, _ = shapes["data"] if len(shapes["data"]) == 3 else (0, 0, 0)
    if not (count and points) or shapes != {
        "data": (count, points, 3),
        "data_num": (count,),
        "label_seg": (count, points),
    }:
        return f"has arrays of shapes {shapes}, not data (n, N, 3), data_num (n,), label_seg (n, N)"
    if max(count, points) > LARGEST:
        return f"announces {count} shapes of {points} points, more than {LARGEST} of either"
    kinds = "".join(file[key].dtype.kind for key in shapes)
    if kinds[0] != "f" or not set(kinds[1:]) <= set("iu"):
        return "must have floats in data and integers in data_num and label_seg"
    return None


def _number_fault(file: h5py.File, points: int = 1) -> str | None:
    """Compare how many points of each shape count with those asked for and those that are stored."""
    numbers, stored = file["data_num"][...], file["data"].shape[1]
    wrong = np.flatnonzero((numbers < points) | (numbers > stored))
    if not len(wrong):
        return None
    number = int(numbers[wrong[0]])
    if number > stored or number < 1:
        return f"shape {wrong[0]} has {number} points by data_num, not 1 to the {stored} that are stored"
    return f"shape {wrong[0]} has {number} points, fewer than the {points} asked for"


def _shape_fault(cloud: NDArray[Any], labels: NDArray[Any], num_classes: int) -> str | None:
    """What is wrong with the points and classes of one shape, those alone that count."""
    if fault := cloud_fault(cloud):
        return fault
    lowest, highest = labels.min(), labels.max()
    if lowest >= 0 and highest < num_classes:
        return None
    return f"has classes {lowest} to {highest}, not 0 to {num_classes - 1} (num_classes = {num_classes})"
