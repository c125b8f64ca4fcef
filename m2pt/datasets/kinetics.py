"""Kinetics as VideoMAE reads it: lists of video files with labels.

    train.csv, val.csv, test.csv    no header, lines `path label` separated by one space, label 0, 1, ...

Paths are relative to the dataset's root and may themselves hold spaces. `test.csv` is optional; VideoMAE
makes it a copy of `val.csv` for Kinetics-400.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from m2pt.datasets.augmentation import settings_of
from m2pt.datasets.faults import absent_files, empty_classes, file_faults, refuse
from m2pt.datasets.images import MEAN, STD
from m2pt.datasets.packed import PackedList
from m2pt.datasets.seeded import SeededDataset
from m2pt.datasets.video import clip_frames, count_starts, read_frames, video_fault

SPLITS = ("train", "val")

CROP_POSITIONS = [(row, column) for row in range(5) for column in range(5) if row % 2 == column % 2]
"""The 13 places of a crop, in quarters of the free space: a grid of three by three and the points between."""


@dataclass(frozen=True)
class Augmentation:
    """VideoMAE's multi-scale crop, the same for all frames of a clip, and a horizontal flip.

    Height and width of the crop are the shorter side times two neighbours in `crop_scales` (official:
    1, .875, .75, .66), at one of 13 places. `hflip` is a probability (official pretraining: 0).
    """

    crop_scales: Sequence[float] = (1.0,)
    hflip: float = 0.0

    def __call__(self, clip: Tensor) -> Tensor:
        """Crop and perhaps flip a clip (T, C, H, W); draws from torch's global generator."""
        height, width = clip.shape[-2:]
        first = _draw(len(self.crop_scales))
        second = min(max(first + _draw(3) - 1, 0), len(self.crop_scales) - 1)
        size = [int(min(height, width) * self.crop_scales[i]) for i in (first, second)]
        row, column = CROP_POSITIONS[_draw(len(CROP_POSITIONS))]
        top, left = row * (height - size[0]) // 4, column * (width - size[1]) // 4
        clip = clip[..., top : top + size[0], left : left + size[1]]
        return clip.flip(-1) if torch.rand(()) < self.hflip else clip


class Reader(SeededDataset):
    """Clips and labels: `(float32 (3, frames, image_size, image_size), int)`, normalised as for ImageNet.

    `augmentation` has the optional keys of `Augmentation`, and takes `frames` frames, `stride` apart, from a
    random start. `None` takes the clip from the middle of the video and the central square.

    Raises:
        InputError: a list is missing or malformed or a label is not below `num_classes`; when an item is
            read, its file cannot be decoded.
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
    ) -> None:
        super().__init__(seed)
        items, faults = _read_list(root, split, num_classes)
        refuse(faults)
        self._items = PackedList(items)
        self._root = root
        self._frames, self._stride, self._side = frames, stride, image_size
        self._augmentation = settings_of(Augmentation, augmentation)
        self._mean, self._std = (
            torch.tensor(MEAN)[:, None, None, None],
            torch.tensor(STD)[:, None, None, None],
        )

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, int]:
        """Decode a clip of video `index` and apply the view."""
        name, label = self._items[index]
        clip = torch.from_numpy(read_frames(self._root / name, self._choose)).permute(0, 3, 1, 2)
        clip = central_square(clip) if self._augmentation is None else self._augmentation(clip)
        clip = F.interpolate(clip.contiguous(), (self._side, self._side), mode="bilinear", antialias=True)
        return (clip.transpose(0, 1) / 255 - self._mean) / self._std, label

    def _choose(self, length: int) -> list[int]:
        starts = count_starts(self._frames, self._stride, length)
        start = (starts - 1) // 2 if self._augmentation is None else _draw(starts)
        return clip_frames(start, self._frames, self._stride, length)


def central_square(clip: Tensor) -> Tensor:
    """Return the central square (T, C, S, S) of a clip (T, C, H, W) with S the shorter side."""
    height, width = clip.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return clip[..., top : top + side, left : left + side]


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
        faults += empty_classes(
            (label for _, label in items), [str(label) for label in range(num_classes)], path
        )
        sound.update(dict.fromkeys(name for name, _ in items if name not in absent))
    if full:
        faults += file_faults([root / name for name in sound], video_fault, what="kinetics")
    return faults


def _draw(bound: int) -> int:
    return int(torch.randint(bound, ()))


def _list_path(root: Path, split: str) -> Path:
    return root / f"{split}.csv"


def _splits(root: Path) -> tuple[str, ...]:
    return (*SPLITS, "test") if _list_path(root, "test").is_file() else SPLITS


def _items(root: Path, split: str) -> list[tuple[str, int]]:
    items, faults = _read_list(root, split, num_classes=None)
    refuse(faults)
    return items


def _read_list(root: Path, split: str, num_classes: int | None) -> tuple[list[tuple[str, int]], list[str]]:
    """Return (path, label) of every good line and a fault for every other; None accepts any label."""
    path = _list_path(root, split)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{path} cannot be read as a list of videos: {error}."]
    items, faults = [], [] if lines else [f"{path} is empty: it should have lines `path label`."]
    for number, line in enumerate(lines, start=1):
        name, space, label = line.rpartition(" ")
        if not (name and space and label.isdecimal()):
            faults.append(f"{path} line {number} is {line!r}, not `path label` separated by one space.")
        elif num_classes is not None and int(label) >= num_classes:
            faults.append(f"{path} line {number} has label {label}, not one of 0 to {num_classes - 1}.")
        else:
            items.append((name, int(label)))
    return items, faults
