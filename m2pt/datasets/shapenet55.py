"""ShapeNet-55 as Point-BERT and Point-MAE read it: lists of point clouds named by synset and model.

    ShapeNet55-34/ShapeNet-55/train.txt, test.txt    lines `<synset>-<model>.npy`; their "test" is our "val"
    ShapeNet55-34/shapenet_pc/<synset>-<model>.npy   (n, 3) floats without a unit; officially n = 8192

The root may be `ShapeNet55-34` itself, and `shapenet_pc` may lie beside that folder. A label is the rank of
the synset among those of both lists.
"""

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2pt.datasets.augmentations import PointcloudAugmentation
from m2pt.datasets.base import PackedList, SeededDataset
from m2pt.datasets.checks import (
    check_files,
    duplicates,
    error_of,
    missing_files,
    quick_sample,
    raise_problems,
)
from m2pt.datasets.pointclouds import cloud_problem, random_clouds, sample_rows, scale_and_shift, unit_sphere
from m2pt.datasets.reading import read_lines, reading, regular_file
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes

RELEASE = "ShapeNet55-34"
LISTS = {"train": "ShapeNet-55/train.txt", "val": "ShapeNet-55/test.txt"}
CLOUDS = "shapenet_pc"

LARGEST_CLOUD = 1 << 28
"""Most bytes of a cloud's file; the official ones have 0.1 MB."""


class Reader(SeededDataset):
    """Point clouds and synsets: `(float32 (points, 3), int)`, centered and scaled to the unit sphere.

    With `augmentation` the points are a random sample of the stored ones, without it those at equal steps
    through the file.

    Raises:
        InputError: a list is missing or malformed, the number of synsets is not `num_classes`, or a file is
            readable and has fewer than `points` points; when a sample is read, its file is unreadable.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        points: int,
        seed: int = 0,
        augmentation: PointcloudAugmentation | None = None,
    ) -> None:
        super().__init__(seed)
        synsets = classes(root)
        raise_problems(_class_count_problems(synsets, num_classes, root))
        label = {synset: rank for rank, synset in enumerate(synsets)}
        self._folder = clouds_folder(root)
        items = _items(root, split)
        clouds = [self._folder / name for _, name in items]
        raise_problems([*check_files(clouds, partial(_size_problem, points=points), what="point clouds")])
        self._items = PackedList((label[synset], name) for synset, name in items)
        self._points = points
        self._augmentation = augmentation

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, int]:
        """Read cloud `index`, take a sample of its points, normalize and augment."""
        label, name = self._items[index]
        cloud = read_cloud(self._folder / name)
        if problem := _number_problem(cloud, self._points):
            raise InputError(f"{self._folder / name} {problem}.")
        rows = sample_rows(len(cloud), self._points, random=self._augmentation is not None)
        view = unit_sphere(cloud[rows])
        if self._augmentation is not None:
            view = scale_and_shift(view, self._augmentation)
        return torch.from_numpy(view), label


def read_cloud(path: Path) -> NDArray[np.float32]:
    """Return the (n, 3) points of a `.npy` file.

    Raises:
        InputError: the file is missing, truncated, too large, pickled, of another shape or type, or its
            points cannot be normalized (see `cloud_problem`).
    """
    content = read_bytes(path, limit=LARGEST_CLOUD)
    with reading(path, "an array"):
        cloud = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    if problem := _shape_problem(cloud) or cloud_problem(cloud):
        raise InputError(f"{path} {problem}.")
    return cloud.astype(np.float32, copy=False)


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: PointcloudAugmentation | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return random clouds (B, points, 3) and labels (B,)."""
    clouds = random_clouds(batch_size, input["points"], device)
    return clouds, torch.randint(num_classes, (batch_size,), device=device)


def list_path(root: Path, split: str) -> Path:
    """Return the path of a list, in `ShapeNet55-34` unless only the root itself has it."""
    return _first([root / RELEASE / LISTS[split], root / LISTS[split]])


def clouds_folder(root: Path) -> Path:
    """Return the folder of the clouds, in `ShapeNet55-34` unless only the root itself has it."""
    return _first([root / RELEASE / CLOUDS, root / CLOUDS])


def _first(paths: Sequence[Path]) -> Path:
    return next((path for path in paths if path.exists()), paths[0])


def classes(root: Path) -> list[str]:
    """Return the synsets of both lists in label order."""
    return sorted({synset for split in LISTS for synset, _ in _items(root, split)})


def counts(root: Path) -> dict[str, int]:
    """Return the number of clouds of each split."""
    return {split: len(_items(root, split)) for split in LISTS}


def files(root: Path) -> Iterator[Path]:
    """Yield both lists and every cloud that they name."""
    for split in LISTS:
        yield list_path(root, split)
        yield from (clouds_folder(root) / name for _, name in _items(root, split))


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every problem: lists, synsets, missing files, sizes and shapes, coordinates.

    The quick check reads the coordinates of a sample of each split (`checks.QUICK_SAMPLE`) and only maps the
    others: NumPy then reads the header and compares it with the size of the file.
    """
    problems: list[str] = []
    synsets: dict[str, set[str]] = {}
    listed_in: dict[str, Path] = {}
    folder = clouds_folder(root)
    for split in LISTS:
        path = list_path(root, split)
        items, found = _read_list(path)
        names = [name for _, name in items]
        found += duplicates(names, path, listed_in)
        absent = missing_files(folder, names, path)
        present = [folder / name for name in dict.fromkeys(names) if name not in absent]
        synsets[split] = {synset for synset, _ in items}
        problems += found + list(absent.values())
        whole = set(quick_sample(present, full=full))
        check_file = partial(_file_problem, whole=whole)
        what = f"shapenet55 {split}"
        problems += check_files(present, check_file, what=what, training=split == "train")
    every = sorted(set().union(*synsets.values()))
    problems += _class_count_problems(every, num_classes, root)
    for split in LISTS:
        missing = [synset for synset in every if synset not in synsets[split]]
        problems += [
            f"class {synset} is empty: {list_path(root, split)} lists no sample of it." for synset in missing
        ]
    return problems


def _file_problem(path: Path, whole: Collection[Path]) -> str | None:
    return error_of(read_cloud if path in whole else _read_header, path)


def _items(root: Path, split: str) -> list[tuple[str, str]]:
    items, problems = _read_list(list_path(root, split))
    raise_problems(problems)
    return items


def _read_list(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (synset, file name) of every valid line and a problem for every other."""
    try:
        lines = read_lines(path)
    except InputError as error:
        return [], [str(error)]
    items, problems = [], [] if lines else [f"{path} is empty: it must list `<synset>-<model>.npy`."]
    for number, line in enumerate(lines, start=1):
        synset, dash, model = line.partition("-")
        if synset and dash and model.endswith(".npy") and "/" not in line:
            items.append((synset, line))
        else:
            problems.append(f"{path} line {number} must be `<synset>-<model>.npy`, got {line!r}.")
    return items, problems


def _class_count_problems(synsets: list[str], num_classes: int, root: Path) -> list[str]:
    if len(synsets) == num_classes:
        return []
    return [f"the lists in {root} have {len(synsets)} synsets, not num_classes = {num_classes}."]


def _shape_problem(cloud: NDArray[Any]) -> str | None:
    if cloud.ndim == 2 and cloud.shape[1] == 3 and len(cloud) and np.issubdtype(cloud.dtype, np.floating):
        return None
    return f"must be floats of shape (points, 3), got {cloud.dtype} of shape {cloud.shape}"


def _number_problem(cloud: NDArray[Any], points: int) -> str | None:
    return f"has {len(cloud)} points, fewer than points = {points}" if len(cloud) < points else None


def _read_header(path: Path) -> NDArray[Any]:
    """Return a cloud, mapped, after checking its header."""
    with reading(regular_file(path), "an array"):
        cloud = np.lib.format.open_memmap(path, mode="r")
    if problem := _shape_problem(cloud):
        raise InputError(f"{path} {problem}.")
    return cloud


def _size_problem(path: Path, points: int) -> str | None:
    """Return a problem if a cloud has fewer than `points` points; None if that cannot be read."""
    try:
        problem = _number_problem(_read_header(path), points)
    except InputError:  # of this sample alone, raised when it is read
        return None
    return f"{path} {problem}." if problem else None
