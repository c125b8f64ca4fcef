"""AV-MNIST as MultiBench distributes it: arrays of digits and of spectrograms of spoken digits.

    image/train_data.npy, image/test_data.npy    (n, pixels), values 0 to 255; officially 784 pixels
    audio/train_data.npy, audio/test_data.npy    (n, side, side), values 0 to 255; officially 112
    train_labels.npy, test_labels.npy            (n,) integers

There is no validation list: "val" is a share of the training rows, `held_out`, that is the same for every
training (see `m2pt.datasets.holdout`), "train" are the others, and "test" is the whole test list.

There are several datasets of this name: the accuracy of published files differs by 10 points and more.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2pt.datasets.arrays import MappedArray, as_floats, blocks, read_labels, rows_problem
from m2pt.datasets.augmentations import NoAugmentation
from m2pt.datasets.base import SeededDataset
from m2pt.datasets.checks import empty_classes, quick_sample, raise_problems
from m2pt.datasets.holdout import held_out as held_out_rows
from m2pt.datasets.multimodal_settings import HELD_OUT
from m2pt.errors import InputError

MODALITIES = ("audio", "image")
SPLITS = ("train", "val", "test")
LISTS = ("train", "test")

MOST_CLASSES = 1_000_000
"""Bound on the labels where the number of classes is not known."""

LOWEST, HIGHEST = -255.0, 510.0
"""Bounds of the stored values: images reconstructed from principal components overshoot 0 and 255."""

FULL_SCALE = 255.0
"""Stored value of a white pixel; inputs are divided by it, as in the released code."""


class Reader(SeededDataset):
    """Spectrograms, images and labels: `({"audio": (1, A, A), "image": (1, I, I)}, int)`, float32 / 255.

    The rows of a spectrogram are frequencies, its columns times.

    Raises:
        InputError: a file is missing or malformed, the files differ in their number of rows, a label is not
            below `num_classes`, or the sides are not `audio_size` and `image_size`; when a sample is read, a
            value of it is far from 0 to 255.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        image_size: int = 28,
        audio_size: int = 112,
        held_out: float = HELD_OUT,
        seed: int = 0,
        augmentation: NoAugmentation | None = None,
    ) -> None:
        super().__init__(seed)
        listed = "test" if split == "test" else "train"
        self._arrays, self._labels, problems = _open(root, listed, num_classes)
        raise_problems(problems)
        for modality, side in (("audio", audio_size), ("image", image_size)):
            stored = _side(self._arrays[modality])
            if stored != side:
                raise InputError(
                    f"{self._arrays[modality].path} has sides of {stored} pixels, not "
                    f"{modality}_size = {side}."
                )
        self._rows = _rows(self._labels, split, held_out)
        if not len(self._rows):
            raise InputError(f"{root}: held_out = {held_out:g} leaves no sample for {split}; change it.")

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, index: int) -> tuple[dict[str, Tensor], int]:
        """Read sample `index` of both files."""
        row = int(self._rows[index])
        inputs = {}
        for modality, array in self._arrays.items():
            values = array[row : row + 1]
            raise_problems([problem] if (problem := _rows_problem(array.path, values, row)) else [])
            square = as_floats(values).reshape(1, _side(array), _side(array))
            inputs[modality] = torch.from_numpy(square / np.float32(FULL_SCALE))
        return inputs, int(self._labels[row])


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: NoAugmentation | None,
    device: torch.device,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return random spectrograms (B, 1, A, A) and images (B, 1, I, I) by modality, and labels (B,)."""
    sides = {modality: input[f"{modality}_size"] for modality in MODALITIES}
    inputs = {name: torch.rand(batch_size, 1, side, side, device=device) for name, side in sides.items()}
    return inputs, torch.randint(num_classes, (batch_size,), device=device)


def classes(root: Path) -> list[str]:
    """Return the labels as text: 0 to the largest of both lists."""
    largest = max(int(read_labels(_labels_path(root, listed), MOST_CLASSES).max()) for listed in LISTS)
    return [str(label) for label in range(largest + 1)]


def counts(root: Path) -> dict[str, int]:
    """Return the number of samples of each split, with the default share held out."""
    labels = {listed: read_labels(_labels_path(root, listed), MOST_CLASSES) for listed in LISTS}
    return {
        split: len(_rows(labels["test" if split == "test" else "train"], split, HELD_OUT)) for split in SPLITS
    }


def files(root: Path) -> Iterator[Path]:
    """Yield the arrays and the labels of both lists."""
    for listed in LISTS:
        yield _labels_path(root, listed)
        yield from (_data_path(root, modality, listed) for modality in MODALITIES)


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every problem: files, types, shapes, numbers of rows, labels, empty classes, values.

    The quick check reads the values of a sample of the rows (`checks.QUICK_SAMPLE`), the full one all.
    """
    problems: list[str] = []
    sides: dict[str, dict[str, int]] = {modality: {} for modality in MODALITIES}
    for listed in LISTS:
        arrays, labels, found = _open(root, listed, num_classes)
        problems += found
        if len(labels):
            names = [str(label) for label in range(num_classes)]
            problems += empty_classes(labels.tolist(), names, _labels_path(root, listed))
        for modality, array in arrays.items():
            sides[modality][listed] = _side(array)
            problem = _values_problem(array, full=full)
            problems += [problem] if problem else []
    for modality, found_sides in sides.items():
        if len(set(found_sides.values())) > 1:
            problems.append(
                f"{root / modality} has sides of {found_sides['train']} pixels in train and of "
                f"{found_sides['test']} in test: they must be equal."
            )
    return problems


def _values_problem(array: MappedArray, *, full: bool) -> str | None:
    """Return a problem if a value is far from 0 to 255, or if none is above 1: they were divided before."""
    sample = ((row, array[row : row + 1]) for row in quick_sample(range(len(array)), full=False))
    largest, brightest = 0.0, 0
    for start, rows in blocks(array) if full else sample:
        if problem := _rows_problem(array.path, rows, start):
            return problem
        if rows.max() > largest:
            largest, brightest = float(rows.max()), start + int(rows.argmax()) // _pixels(array)
    if largest > 1:
        return None
    return (
        f"{array.path} row {brightest} has the largest value that was read, {largest:g}: give pixels of 0 to "
        f"{FULL_SCALE:g}, which the reader scales to 0 to 1 itself."
    )


def _rows_problem(path: Path, rows: NDArray[Any], start: int) -> str | None:
    """Return a problem if one of `rows`, the first of which is row `start`, has a value far from 0 to 255."""
    if problem := rows_problem(path, rows, start):
        return problem
    flat = rows.reshape(len(rows), -1)
    wrong = np.flatnonzero((flat.min(axis=1) < LOWEST) | (flat.max(axis=1) > HIGHEST))
    if not wrong.size:
        return None
    low, high = flat[wrong[0]].min(), flat[wrong[0]].max()
    return (
        f"{path} row {start + wrong[0]} has values of {low:g} to {high:g}: give pixels of 0 to "
        f"{FULL_SCALE:g}, as MultiBench's files have."
    )


def _open(
    root: Path, listed: str, num_classes: int
) -> tuple[dict[str, MappedArray], NDArray[np.int64], list[str]]:
    """Return the valid arrays of a list by modality, its labels (none if they are invalid), and problems."""
    arrays: dict[str, MappedArray] = {}
    labels, problems = np.empty(0, np.int64), []
    try:
        labels = read_labels(_labels_path(root, listed), num_classes)
        if not len(labels):
            problems.append(f"{_labels_path(root, listed)} has no labels.")
    except InputError as error:
        problems.append(str(error))
    for modality in MODALITIES:
        try:
            array = MappedArray(_data_path(root, modality, listed))
            _check_shape(array, modality)
        except InputError as error:
            problems.append(str(error))
            continue
        arrays[modality] = array
    rows = {array.path: len(array) for array in arrays.values()}
    if len(labels):
        rows[_labels_path(root, listed)] = len(labels)
    if len(set(rows.values())) > 1:
        numbers = ", ".join(f"{path} has {number} rows" for path, number in rows.items())
        problems.append(f"{numbers}: they must have equally many.")
    return arrays, labels, problems


def _check_shape(array: MappedArray, modality: str) -> None:
    wanted = "(n, pixels) of square images" if modality == "image" else "(n, side, side)"
    square = array.shape[1:] == (_side(array),) * 2 if modality == "audio" else len(array.shape) == 2
    if not square or 0 in array.shape or _pixels(array) != _side(array) ** 2:
        raise InputError(
            f"{array.path} must be numbers of shape {wanted}, got {array.dtype} of shape {array.shape}."
        )


def _pixels(array: MappedArray) -> int:
    return math.prod(array.shape[1:])


def _side(array: MappedArray) -> int:
    return math.isqrt(_pixels(array))


def _rows(labels: NDArray[np.int64], split: str, share: float) -> NDArray[np.int64]:
    """Return the rows of a split in its list, whose labels these are."""
    if split == "test":
        return np.arange(len(labels))
    chosen = held_out_rows([str(row) for row in range(len(labels))], labels, share)
    return np.flatnonzero(chosen == (split == "val"))


def _data_path(root: Path, modality: str, listed: str) -> Path:
    return root / modality / f"{listed}_data.npy"


def _labels_path(root: Path, listed: str) -> Path:
    return root / f"{listed}_labels.npy"
