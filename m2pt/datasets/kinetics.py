"""Kinetics as VideoMAE reads it: lists of video files with labels.

    train.csv, val.csv, test.csv    no header, lines `path label` separated by one space, label 0, 1, ...

Paths are absolute or relative to the dataset's root. A path with spaces may be in double quotes, as VideoMAE
needs it (it reads the lists with pandas), or unquoted: the label follows the last space. Empty lines are
ignored. `test.csv` is optional; for Kinetics-400 VideoMAE uses a copy of `val.csv`. So is `classes.txt`, the
names of the classes for messages, one in each line.
"""

import csv
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2pt.datasets.augmentations import ClipAugmentation, ClipCropAugmentation, MultiView, policy_errors
from m2pt.datasets.base import PackedList, SeededDataset
from m2pt.datasets.checks import check_files, empty_classes, missing_files, raise_problems
from m2pt.datasets.reading import read_lines
from m2pt.datasets.video import read_frames, video_problem
from m2pt.datasets.video_views import make_view
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes

SPLITS = ("train", "val")

CLASSES = "classes.txt"

LARGEST_LIST = 1 << 30
"""Bytes, enough for ten million videos."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Reader(SeededDataset):
    """Clips and labels: `(float32 (3, frames, image_size, image_size), int)`, normalized as for ImageNet.

    With `augmentation` a clip is `frames` frames, `stride` apart, from a random start; a `ClipAugmentation`
    with `samples` > 1 gives a list of that many samples of one clip. Without it a sample is the central
    square of the clip in the middle of the video, or, with `views`, all test views of the video:
    `(float32 (clips * crops, 3, frames, image_size, image_size), int)`. Each video is decoded once.

    Raises:
        InputError: a list is missing or malformed, a label is not below `num_classes`, or both augmentation
            and views are given; when a sample is read, its file cannot be decoded.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        image_size: int,
        frames: int,
        stride: int,
        seed: int = 0,
        augmentation: ClipAugmentation | ClipCropAugmentation | None = None,
        views: MultiView | None = None,
    ) -> None:
        super().__init__(seed)
        items, problems = _read_list(root, split, num_classes)
        raise_problems(problems)
        self._items = PackedList(items)
        self._root = root
        self._view = make_view(frames, stride, image_size, augmentation=augmentation, views=views)

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, int] | list[tuple[Tensor, int]]:
        """Decode the frames of video `index` that the view needs and transform them, `samples` times."""
        name, label = self._items[index]
        frames = torch.from_numpy(read_frames(self._root / name, self._view.indices)).permute(0, 3, 1, 2)
        samples = [(self._view.transform(frames), label) for _ in range(self._view.samples)]
        return samples if len(samples) > 1 else samples[0]


def check_augmentation(
    augmentation: ClipCropAugmentation | ClipAugmentation, input: Mapping[str, Any]
) -> None:
    """Build the training view.

    Raises:
        InputError: timm does not know the policy `auto_augment`.
    """
    policy = augmentation.auto_augment if isinstance(augmentation, ClipAugmentation) else None
    with policy_errors(policy):
        make_view(input["frames"], input["stride"], input["image_size"], augmentation=augmentation)


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: ClipAugmentation | ClipCropAugmentation | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return random clips (B, 3, frames, S, S), S = `image_size`, and labels (B,).

    B is `batch_size` times the `samples` of a `ClipAugmentation`, each of which is a separate sample.
    """
    count = batch_size * (augmentation.samples if isinstance(augmentation, ClipAugmentation) else 1)
    side = input["image_size"]
    clips = torch.randn(count, 3, input["frames"], side, side, device=device)
    return clips, torch.randint(num_classes, (count,), device=device)


def classes(root: Path) -> list[str]:
    """Return the labels as text, since the lists give no names."""
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
    """Return every problem: lists, labels, missing files, empty classes, and if `full` unreadable videos."""
    problems: list[str] = []
    present: dict[str, list[str]] = {}
    for split in _splits(root):
        path = _list_path(root, split)
        items, found = _read_list(root, split, num_classes)
        absent = missing_files(root, (name for name, _ in items), path)
        problems += found + list(absent.values())
        if split in SPLITS:  # no reader uses the test list, and its labels may be placeholders
            problems += empty_classes((label for _, label in items), _names(root, num_classes), path)
        present[split] = [name for name, _ in items if name not in absent]
    if full:
        evaluated = dict.fromkeys(name for split in present if split != "train" for name in present[split])
        trained = dict.fromkeys(name for name in present["train"] if name not in evaluated)
        for names, training in ((trained, True), (evaluated, False)):
            paths = [root / name for name in names]
            problems += check_files(paths, video_problem, what="kinetics", training=training)
    return problems


def _names(root: Path, num_classes: int) -> list[str]:
    """Return the names of the classes; the labels as text if there are none, or of another number."""
    if (root / CLASSES).is_file() and len(names := read_lines(root / CLASSES)) == num_classes:
        return names
    return [str(label) for label in range(num_classes)]


def _list_path(root: Path, split: str) -> Path:
    return root / f"{split}.csv"


def _splits(root: Path) -> tuple[str, ...]:
    return (*SPLITS, "test") if os.path.lexists(_list_path(root, "test")) else SPLITS


def _items(root: Path, split: str) -> list[tuple[str, int]]:
    items, problems = _read_list(root, split, num_classes=None)
    raise_problems(problems)
    return items


def _read_list(root: Path, split: str, num_classes: int | None) -> tuple[list[tuple[str, int]], list[str]]:
    """Return (path, label) of every valid line and a problem for every other; None accepts any label."""
    path = _list_path(root, split)
    try:
        content = read_bytes(path, limit=LARGEST_LIST).removeprefix(BYTE_ORDER_MARK)
        text = content.decode()
    except InputError as error:
        return [], [str(error)]
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        return [], [f"{path} line {number} is not UTF-8: rename the video and write the list again."]
    items: list[tuple[str, int]] = []
    problems: list[str] = []
    lines: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(re.split("\r\n|\n|\r", text), start=1):
        if not line.strip():
            continue
        name, label = _fields(line.rstrip())
        if not name or "\0" in name or not re.fullmatch("[0-9]{1,9}", label):
            problems.append(
                f"{path} line {number} must be `path label`, separated by one space, with a label 0, 1, 2, "
                f"..., got {line[:200]!r}."
            )
        elif num_classes is not None and int(label) >= num_classes:
            problems.append(f"{path} line {number}: label must be 0 to {num_classes - 1}, got {label}.")
        else:
            first, as_first = lines.setdefault(os.path.normpath(name), (number, label))
            gives_weight = split == "train" and label == as_first
            if first != number and not gives_weight:
                problems.append(f"{path} line {number} duplicates {name} of line {first}: keep one.")
            items.append((name, int(label)))
    if not items and not problems:
        problems.append(f"{path} is empty: it must have lines `path label`.")
    return items, problems


def _fields(line: str) -> tuple[str, str]:
    """Return path and label of a line, or two empty strings if it is malformed."""
    if not line.startswith('"'):
        name, _, label = line.rpartition(" ")
        return (name, label) if name == name.strip() else ("", "")
    try:
        (fields,) = csv.reader([line], delimiter=" ", strict=True)
        name, label = fields
    except (csv.Error, ValueError):
        return "", ""
    return name, label
