"""ShapeNet-55 as Point-BERT and Point-MAE read it: lists of point clouds named by synset and model.

    ShapeNet55-34/ShapeNet-55/train.txt, test.txt    lines `<synset>-<model>.npy`; their "test" is our "val"
    shapenet_pc/<synset>-<model>.npy                 (n, 3) floats without unit; the official n is 8192

A label is the rank of the synset among those of both lists.
"""

import io
from collections.abc import Collection, Iterator, Mapping
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
    fault_of,
    file_faults,
    reading,
    refuse,
    regular_file,
    repeated,
    sampled,
)
from m2pt.datasets.listings import read_lines
from m2pt.datasets.packed import PackedList
from m2pt.datasets.pointclouds import Augmentation, cloud_fault, sample_rows, unit_sphere
from m2pt.datasets.seeded import SeededDataset
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes

LISTS = {"train": "ShapeNet55-34/ShapeNet-55/train.txt", "val": "ShapeNet55-34/ShapeNet-55/test.txt"}
CLOUDS = "shapenet_pc"

LARGEST_CLOUD = 1 << 28
"""Bytes of a cloud's file; the official ones have 0.1 MB."""


class Reader(SeededDataset):
    """Point clouds and synsets: `(float32 (points, 3), int)`, centred and scaled to the unit sphere.

    `augmentation` has the optional keys of `Augmentation`, and takes a random sample of the stored points.
    `None` takes points at equal steps through the file.

    Raises:
        InputError: a list is missing or malformed, the number of synsets is not `num_classes`, or a file is
            missing or holds fewer than `points` points; when an item is read, its file is unreadable.
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
        synsets = classes(root)
        refuse(_class_count_faults(synsets, num_classes, root))
        label = {synset: rank for rank, synset in enumerate(synsets)}
        self._folder = root / CLOUDS
        items = _items(root, split)
        clouds = [self._folder / name for _, name in items]
        refuse([*file_faults(clouds, partial(fault_of, _read_header, points=points), what="point clouds")])
        self._items = PackedList((label[synset], name) for synset, name in items)
        self._points = points
        self._augmentation = settings_of(Augmentation, augmentation)

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, int]:
        """Read cloud `index`, take a sample of its points, normalise and augment."""
        label, name = self._items[index]
        cloud = read_cloud(self._folder / name)
        if fault := _number_fault(cloud, self._points):
            raise InputError(f"{self._folder / name} {fault}.")
        rows = sample_rows(len(cloud), self._points, random=self._augmentation is not None)
        view = unit_sphere(cloud[rows])
        return torch.from_numpy(view if self._augmentation is None else self._augmentation(view)), label


def read_cloud(path: Path) -> NDArray[np.float32]:
    """Return the (n, 3) points of a `.npy` file.

    Raises:
        InputError: the file is missing, truncated, too large, pickled, of another shape or type, or its
            points have no shape (see `cloud_fault`).
    """
    content = read_bytes(path, limit=LARGEST_CLOUD)
    with reading(path, "an array"):
        cloud = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    if fault := _shape_fault(cloud) or cloud_fault(cloud):
        raise InputError(f"{path} {fault}.")
    return cloud.astype(np.float32, copy=False)


def classes(root: Path) -> list[str]:
    """Return the synsets of both lists in label order."""
    return sorted({synset for split in LISTS for synset, _ in _items(root, split)})


def counts(root: Path) -> dict[str, int]:
    """Return the number of clouds of each split."""
    return {split: len(_items(root, split)) for split in LISTS}


def files(root: Path) -> Iterator[Path]:
    """Yield both lists and every cloud that they name."""
    for split, relative in LISTS.items():
        yield root / relative
        yield from (root / CLOUDS / name for _, name in _items(root, split))


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every fault: lists, synsets, missing files, sizes and shapes, coordinates.

    The quick form reads the coordinates of a sample of each split (`faults.QUICK_SAMPLE`) and maps the
    others: NumPy then reads the header and compares the size of the file with it.
    """
    faults: list[str] = []
    synsets: dict[str, set[str]] = {}
    listed_in: dict[str, Path] = {}
    for split, relative in LISTS.items():
        items, found = _read_list(root / relative)
        found += repeated((name for _, name in items), root / relative, listed_in)
        names = [f"{CLOUDS}/{name}" for _, name in items]
        absent = absent_files(root, names, root / relative)
        present = [root / name for name in dict.fromkeys(names) if name not in absent]
        synsets[split] = {synset for synset, _ in items}
        faults += found + list(absent.values())
        whole = set(sampled(present, full=full))
        faults += file_faults(present, partial(_file_fault, whole=whole), what=f"shapenet55 {split}")
    every = sorted(set().union(*synsets.values()))
    faults += _class_count_faults(every, num_classes, root)
    for split, relative in LISTS.items():
        missing = [synset for synset in every if synset not in synsets[split]]
        faults += [f"class {synset} is empty: it has no item in {root / relative}." for synset in missing]
    return faults


def _file_fault(path: Path, whole: Collection[Path]) -> str | None:
    return fault_of(read_cloud if path in whole else _read_header, path)


def _items(root: Path, split: str) -> list[tuple[str, str]]:
    items, faults = _read_list(root / LISTS[split])
    refuse(faults)
    return items


def _read_list(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (synset, file name) of every good line and a fault for every other."""
    try:
        lines = read_lines(path)
    except InputError as error:
        return [], [str(error)]
    items, faults = [], [] if lines else [f"{path} is empty: it should list `<synset>-<model>.npy`."]
    for number, line in enumerate(lines, start=1):
        synset, dash, model = line.partition("-")
        if synset and dash and model.endswith(".npy") and "/" not in line:
            items.append((synset, line))
        else:
            faults.append(f"{path} line {number} is {line!r}, not `<synset>-<model>.npy`.")
    return items, faults


def _class_count_faults(synsets: list[str], num_classes: int, root: Path) -> list[str]:
    if len(synsets) == num_classes:
        return []
    return [f"the lists of {root} name {len(synsets)} synsets, not num_classes = {num_classes}."]


def _shape_fault(cloud: NDArray[Any]) -> str | None:
    if cloud.ndim == 2 and cloud.shape[1] == 3 and len(cloud) and np.issubdtype(cloud.dtype, np.floating):
        return None
    return f"holds {cloud.dtype} of shape {cloud.shape}, not floats of shape (points, 3)"


def _number_fault(cloud: NDArray[Any], points: int) -> str | None:
    return f"holds {len(cloud)} points, fewer than the {points} asked for" if len(cloud) < points else None


def _read_header(path: Path, points: int = 1) -> None:
    """Look at a cloud as its header tells and, if `points` are asked for, at their number."""
    with reading(regular_file(path), "an array"):
        cloud = np.lib.format.open_memmap(path, mode="r")
        fault = _shape_fault(cloud) or _number_fault(cloud, points)
    if fault:
        raise InputError(f"{path} {fault}.")
