"""Kinetics as VideoMAE reads it: lists of video files with labels.

    train.csv, val.csv, test.csv    no header, lines `path label` separated by one space, label 0, 1, ...

Paths are absolute or relative to the dataset's root. A path that holds spaces may stand in double quotes, as
VideoMAE needs it (it reads the lists with pandas), or as it is: the label follows the last space. Empty
lines do not count. `test.csv` is optional; VideoMAE makes it a copy of `val.csv` for Kinetics-400.
"""

import csv
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2pt.datasets.faults import absent_files, empty_classes, file_faults, refuse
from m2pt.datasets.packed import PackedList
from m2pt.datasets.seeded import SeededDataset
from m2pt.datasets.video import read_frames, video_fault
from m2pt.datasets.video_views import make_view
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes

SPLITS = ("train", "val")

LARGEST_LIST = 1 << 30
"""Bytes, enough for ten million videos."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Reader(SeededDataset):
    """Clips and labels: `(float32 (3, frames, image_size, image_size), int)`, normalised as for ImageNet.

    `augmentation` takes `frames` frames, `stride` apart, from a random start. With the key `scale` it is
    VideoMAE's finetuning (`FinetuningAugmentation`) and an item with `samples` above one is a list of so many
    such samples of one clip; without, its pretraining (`PretrainingAugmentation`). `None` takes the clip from
    the middle of the video and the central square, or, with `views` (keys `clips`, `crops`), makes an item
    of all test views of a video: `(float32 (clips * crops, 3, frames, image_size, image_size), int)`.
    In each case a video is decoded once.

    Raises:
        InputError: a list is missing or malformed, a label is not below `num_classes`, or both augmentation
            and views are given; when an item is read, its file cannot be decoded.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        image_size: int,
        frames: int = 16,
        stride: int = 4,
        seed: int = 0,
        augmentation: Mapping[str, Any] | None = None,
        views: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(seed)
        items, faults = _read_list(root, split, num_classes)
        refuse(faults)
        self._items = PackedList(items)
        self._root = root
        self._view = make_view(frames, stride, image_size, augmentation=augmentation, views=views)

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, int] | list[tuple[Tensor, int]]:
        """Decode what the view needs of video `index` and look at it, `samples` times."""
        name, label = self._items[index]
        pictures = torch.from_numpy(read_frames(self._root / name, self._view.choose)).permute(0, 3, 1, 2)
        samples = [(self._view.look(pictures), label) for _ in range(self._view.samples)]
        return samples if len(samples) > 1 else samples[0]


def classes(root: Path) -> list[str]:
    """Return the labels as text, for the lists give no names."""
    return [str(label) for label in sorted({label for split in SPLITS for _, label in _items(root, split)})]


def counts(root: Path) -> dict[str, int]:
    """Return the number of videos of each split."""
    return {split: len(_items(root, split)) for split in SPLITS}


def files(root: Path) -> Iterator[Path]:
    """Yield the lists and every video that they name."""
    lists = [_list_path(root, split) for split in (*SPLITS, "test")]
    yield from (path for path in lists if path.is_file())
    names = dict.fromkeys(name for split in _splits(root) for name, _ in _items(root, split))
    yield from (root / name for name in names)


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every fault: lists, labels, missing files, empty classes, and if `full` unreadable videos."""
    faults: list[str] = []
    sound: dict[str, None] = {}
    for split in _splits(root):
        path = _list_path(root, split)
        items, found = _read_list(root, split, num_classes)
        absent = absent_files(root, (name for name, _ in items), path)
        faults += found + list(absent.values())
        if split in SPLITS:  # no reader reads the test list, whose labels may be placeholders
            faults += empty_classes(
                (label for _, label in items), [str(label) for label in range(num_classes)], path
            )
        sound.update(dict.fromkeys(name for name, _ in items if name not in absent))
    if full:
        faults += file_faults([root / name for name in sound], video_fault, what="kinetics")
    return faults


def _list_path(root: Path, split: str) -> Path:
    return root / f"{split}.csv"


def _splits(root: Path) -> tuple[str, ...]:
    return (*SPLITS, "test") if os.path.lexists(_list_path(root, "test")) else SPLITS


def _items(root: Path, split: str) -> list[tuple[str, int]]:
    items, faults = _read_list(root, split, num_classes=None)
    refuse(faults)
    return items


def _read_list(root: Path, split: str, num_classes: int | None) -> tuple[list[tuple[str, int]], list[str]]:
    """Return (path, label) of every good line and a fault for every other; None accepts any label."""
    path = _list_path(root, split)
    try:
        content = read_bytes(path, limit=LARGEST_LIST).removeprefix(BYTE_ORDER_MARK)
        text = content.decode()
    except InputError as error:
        return [], [str(error)]
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        return [], [f"{path} line {number} is not UTF-8: rename its video and write the list again."]
    items: list[tuple[str, int]] = []
    faults: list[str] = []
    lines: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(re.split("\r\n|\n|\r", text), start=1):
        if not line.strip():
            continue
        name, label = _fields(line.rstrip())
        if not name or "\0" in name or not re.fullmatch("[0-9]{1,9}", label):
            faults.append(
                f"{path} line {number} is {line[:200]!r}, not `path label` separated by one space, "
                "with a label 0, 1, 2, ..."
            )
        elif num_classes is not None and int(label) >= num_classes:
            faults.append(f"{path} line {number} has label {label}, not one of 0 to {num_classes - 1}.")
        else:
            first, as_first = lines.setdefault(os.path.normpath(name), (number, label))
            gives_weight = split == "train" and label == as_first
            if first != number and not gives_weight:
                faults.append(f"{path} line {number} lists {name} again, after line {first}: keep one.")
            items.append((name, int(label)))
    if not items and not faults:
        faults.append(f"{path} is empty: it should have lines `path label`.")
    return items, faults


def _fields(line: str) -> tuple[str, str]:
    """Return path and label of a line, two empty texts if it is neither way of writing them."""
    if not line.startswith('"'):
        name, _, label = line.rpartition(" ")
        return (name, label) if name == name.strip() else ("", "")
    try:
        (fields,) = csv.reader([line], delimiter=" ", strict=True)
        name, label = fields
    except (csv.Error, ValueError):
        return "", ""
    return name, label
