"""CREMA-D as OGM-GE and AGM read it: lists of clips with a sound and extracted frames each.

    CREMAD/train.csv, CREMAD/test.csv    no header, rows `item,label`, label one of `LABELS`
    Audio/<item>.wav
    Image-01-FPS/<item>/*.jpg            the frames of the clip, one per second; see `m2pt.datasets.frames`

There is no validation list: "val" is a share of the training list, `held_out`, that is the same for every
training (see `m2pt.datasets.holdout`), "train" are the others, and "test" is the whole test list.
"""

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from m2pt.catalog.layouts import CREMAD_FRAMES as FRAMES
from m2pt.datasets.augmentations import FrameAugmentation
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
from m2pt.datasets.holdout import held_out as held_out_items
from m2pt.datasets.images import MEAN, STD, image_names, open_image, unread_files
from m2pt.datasets.kept import KeptTensors
from m2pt.datasets.multimodal_settings import HELD_OUT, CremaDInput
from m2pt.datasets.reading import read_text
from m2pt.datasets.sound import read_sound
from m2pt.datasets.spectrogram import log_magnitudes, read_waveform, repeated
from m2pt.datasets.video import spread
from m2pt.errors import InputError

LABELS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
"""Neutral, happy, sad, fear, disgust, anger, in label order."""

SPLITS = ("train", "val", "test")
LISTS = {"train": "CREMAD/train.csv", "test": "CREMAD/test.csv"}
SOUNDS = "Audio"

_MEAN, _STD = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))


class Reader(SeededDataset):
    """Spectrograms, frames and labels: `({"audio": (1, F, N), "image": (3, T, S, S)}, int)`, float32.

    The spectrogram has F = n_fft // 2 + 1 frequencies and N = 1 + samples // hop windows (see
    `m2pt.datasets.spectrogram`). T = `frames` frames are spread evenly over those of the clip, in the order
    of their names, where a shorter name is first; a clip with fewer repeats some. They are scaled to squares
    of S = `image_size` pixels, with `augmentation` after a random crop that is the same for all of them, and
    normalized as for ImageNet.

    Raises:
        InputError: a list is missing or malformed, or `num_classes` is not 6; when a sample is read, its
            sound is unreadable, or it has no frame, an unreadable one or frames of different sizes.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        seed: int = 0,
        augmentation: FrameAugmentation | None = None,
        **input: Any,
    ) -> None:
        super().__init__(seed)
        raise_problems(_class_count_problems(root, num_classes))
        self._input = CremaDInput(**input)
        items = _split(root, split, self._input.held_out)
        if not items:
            raise InputError(
                f"{root}: held_out = {self._input.held_out:g} leaves no sample for {split}; change it."
            )
        self._items = PackedList(items)
        self._root = root
        self._augmentation = augmentation
        self._spectrograms, self._frames = KeptTensors(self._read_spectrogram), KeptTensors(self._read_frames)

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[dict[str, Tensor], int]:
        """Read the sound and the frames of clip `index` and transform them."""
        item, label = self._items[index]
        return {"audio": self._spectrograms(item), "image": self._clip(item)}, label

    def _read_spectrogram(self, item: str) -> Tensor:
        settings = self._input
        waveform = read_waveform(_sound(self._root, item), settings.sample_rate)
        sound = torch.from_numpy(repeated(waveform, settings.samples))
        return log_magnitudes(sound, n_fft=settings.n_fft, hop=settings.hop).unsqueeze(0)

    def _clip(self, item: str) -> Tensor:
        frames, side = self._frames(item), [self._input.image_size] * 2
        if (settings := self._augmentation) is None:
            view = F.resize(frames, side, antialias=True)
        else:
            window = RandomResizedCrop.get_params(frames, list(settings.scale), list(settings.ratio))
            view = F.resized_crop(frames, *window, size=side, antialias=True)
            if torch.rand(()) < settings.hflip:
                view = F.horizontal_flip(view)
        return (view.transpose(0, 1).float() / 255 - _MEAN) / _STD

    def _read_frames(self, item: str) -> Tensor:
        count = self._input.frames
        return read_frames(self._root / FRAMES / item, lambda length: spread(count, length - 1))


def read_frames(folder: Path, choose: Callable[[int], Sequence[int]]) -> Tensor:
    """Return the frames (T, 3, H, W) uint8 of a clip with the indices `choose(number of frames)`.

    Raises:
        InputError: the folder has no image, or an image is unreadable or of another size than the first.
    """
    names = sorted(image_names(folder), key=lambda name: (len(name), name))  # frame9.jpg before frame10.jpg
    if not names:
        raise InputError(f"{folder} is missing or has no frame: extract the frames of the clip.")
    frames: list[np.ndarray[Any, Any]] = []
    for number in choose(len(names)):
        frames.append(np.asarray(open_image(folder / names[number])))
        if frames[-1].shape != frames[0].shape:
            raise InputError(f"{folder / names[number]} has another size than {names[0]} beside it.")
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: FrameAugmentation | None,
    device: torch.device,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return random spectrograms (B, 1, F, N) and frames (B, 3, T, S, S) by modality, and labels (B,)."""
    settings = CremaDInput(**input)
    side = settings.image_size
    inputs = {
        "audio": torch.randn(batch_size, 1, settings.bins, settings.steps, device=device),
        "image": torch.randn(batch_size, 3, settings.frames, side, side, device=device),
    }
    return inputs, torch.randint(num_classes, (batch_size,), device=device)


def classes(root: Path) -> list[str]:
    """Return the names of the emotions in label order."""
    return list(LABELS)


def counts(root: Path) -> dict[str, int]:
    """Return the number of clips of each split, with the default share held out."""
    return {split: len(_split(root, split, HELD_OUT)) for split in SPLITS}


def files(root: Path) -> Iterator[Path]:
    """Yield both lists, and the sound and the frames of every clip that they name."""
    for listed, relative in LISTS.items():
        yield root / relative
        for item, _ in _items(root, listed):
            yield _sound(root, item)
            yield from (root / FRAMES / item / name for name in image_names(root / FRAMES / item))


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every problem: lists, labels, empty classes, clips without sound or frames, unreadable files.

    The quick check decodes the sounds and frames of a sample of each list (`checks.QUICK_SAMPLE`).
    """
    problems = _class_count_problems(root, num_classes)
    listed_in: dict[str, Path] = {}
    for listed, relative in LISTS.items():
        items, found = _read_list(root / relative)
        names = [item for item, _ in items]
        problems += found + duplicates(names, root / relative, listed_in)
        if items:
            problems += empty_classes((label for _, label in items), LABELS, root / relative)
        sounds = {f"{SOUNDS}/{name}.wav": name for name in names}
        absent = missing_files(root, sounds, root / relative)
        problems += absent.values()
        decoded = set(quick_sample(list(dict.fromkeys(names)), full=full))
        present = [root / sound for sound, name in sounds.items() if name in decoded and sound not in absent]
        problems += check_files(present, partial(error_of, read_sound), what=f"cremad {listed} sounds")
        folders = [root / FRAMES / name for name in dict.fromkeys(names)]
        problems += check_files(
            folders,
            partial(_frames_problem, decoded=decoded),
            what=f"cremad {listed} frames",
        )
    return problems


def _frames_problem(folder: Path, *, decoded: Collection[str]) -> str | None:
    """Return the first problem of a clip's frames; only one frame is read unless the clip is `decoded`."""
    every = range if folder.name in decoded else lambda length: range(1)
    try:
        read_frames(folder, every)
        return next(unread_files(folder), None)
    except InputError as error:
        return str(error)


def _split(root: Path, split: str, share: float) -> list[tuple[str, int]]:
    """Return (item, label) of the clips of a split."""
    items = _items(root, "test" if split == "test" else "train")
    if split == "test":
        return items
    labels = np.array([label for _, label in items])
    chosen = held_out_items([item for item, _ in items], labels, share)
    return [item for item, held in zip(items, chosen, strict=True) if held == (split == "val")]


def _items(root: Path, listed: str) -> list[tuple[str, int]]:
    items, problems = _read_list(root / LISTS[listed])
    raise_problems(problems)
    return items


def _read_list(path: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """Return (item, label) of every valid row and a problem for every other; empty rows are ignored."""
    try:
        rows = list(csv.reader(io.StringIO(read_text(path), newline="")))
    except InputError as error:
        return [], [str(error)]
    except csv.Error as error:
        return [], [f"{path} cannot be read as CSV: {error}."]
    items, problems = [], []
    for number, row in enumerate(rows, start=1):
        if len(row) == 2 and _is_item(row[0]) and row[1] in LABELS:
            items.append((row[0], LABELS.index(row[1])))
        elif row:
            problems.append(
                f"{path} row {number} must be `item,label` with a label of {', '.join(LABELS)}, "
                f"got {','.join(row)!r}."
            )
    return items, problems or ([] if items else [f"{path} lists no clips."])


def _is_item(name: str) -> bool:
    """Return True if a name is that of a file without its suffix, not of one elsewhere."""
    return bool(name) and name == name.strip() and name.isprintable() and "/" not in name and name[0] != "."


def _sound(root: Path, item: str) -> Path:
    return root / SOUNDS / f"{item}.wav"


def _class_count_problems(root: Path, num_classes: int) -> list[str]:
    if num_classes == len(LABELS):
        return []
    return [f"{root / LISTS['train']} has {len(LABELS)} classes, not num_classes = {num_classes}."]
