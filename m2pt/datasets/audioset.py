"""AudioSet as AST and AudioMAE read it: JSON lists of sound files with labels from the AudioSet ontology.

    class_labels_indices.csv    header `index,mid,display_name`; the index is the label
    train.json, eval.json       {"data": [{"wav": path, "labels": "/m/...,/m/..."}]}; "eval" is our "val"

Paths are relative to the dataset's root or absolute. AS-2M and AS-20K are two roots with different lists,
which may share their sound files through symbolic links. train.json may list a clip several times with the
same labels, to sample it more often; in eval.json duplicates are an error, since they would count twice.
"""

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m2pt.datasets.audio_augmentation import Waveform, check_masks, draw_mixup, mask, mix, roll_and_scale
from m2pt.datasets.augmentations import SpectrogramAugmentation, WaveformAugmentation
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
from m2pt.datasets.fbank import FRAME_SECONDS, SHIFT_SECONDS, log_mel
from m2pt.datasets.reading import read_text
from m2pt.datasets.sound import read_sound
from m2pt.errors import InputError
from m2pt.formats.documents import read_listing

LISTS = {"train": "train.json", "val": "eval.json"}
CLASSES = "class_labels_indices.csv"
HEADER = ["index", "mid", "display_name"]

FRAMES = 8192
"""Frames after which a clip is cut unless more are requested: an hour's spectrogram takes gigabytes."""


class Reader(SeededDataset):
    """Log mel spectrograms and labels: `(float32 (1, frames, mel_bins), multi-hot float32 (num_classes,))`.

    The waveform is the first channel in [-1, 1], resampled to `sample_rate` if necessary, minus its mean. Its
    log mel energies are zero-padded or cut to `frames` (10 ms each) and then normalized as
    (x - mean) / (2 std), so that the padding is not zero (0.467 with AudioSet's constants), as in AST.

    Mixup mixes a clip with another of the same list before the spectrogram is computed, and the labels in the
    same proportion: a class that only one of the two has gets that clip's share. Masks are zeros before the
    normalization, like the padding.

    Raises:
        InputError: a list or the classes are missing or malformed, a label is unknown, the number of classes
            is not `num_classes`, or a mask is too long; when a sample is read, its file is unreadable or
            empty.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        frames: int,
        mel_bins: int,
        sample_rate: int,
        mean: float,
        std: float,
        seed: int = 0,
        augmentation: WaveformAugmentation | None = None,
    ) -> None:
        super().__init__(seed)
        named, problems = _read_classes(root)
        raise_problems(problems + _class_count_problems(root, named, num_classes))
        items, problems = _read_list(root / LISTS[split], list(named))
        raise_problems(problems)
        self._items = PackedList(items)
        self._root = root
        self._num_classes = num_classes
        self._frames, self._mel_bins, self._sample_rate = frames, mel_bins, sample_rate
        self._mean, self._std = mean, std
        self._waveform_augmentation = augmentation
        self._augmentation = augmentation if isinstance(augmentation, SpectrogramAugmentation) else None
        if self._augmentation is not None:
            check_masks(self._augmentation, frames, mel_bins)

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Read clip `index`, augment it and compute its spectrogram."""
        waveform, labels = self._read(index)
        share = draw_mixup(self._augmentation) if self._augmentation else None
        if share is not None:
            other, other_labels = self._read(np.random.randint(len(self)))
            waveform = mix(waveform, other, share)
            labels = share * labels + (1 - share) * other_labels
        wanted = int(self._sample_rate * (FRAME_SECONDS + SHIFT_SECONDS * max(self._frames, FRAMES)))
        energies = log_mel(
            torch.from_numpy(waveform[:wanted]), sample_rate=self._sample_rate, mel_bins=self._mel_bins
        )
        spectrogram = torch.zeros(self._frames, self._mel_bins)
        length = min(self._frames, len(energies))
        spectrogram[:length] = energies[:length]
        if self._augmentation is not None:
            mask(spectrogram, self._augmentation)
        return (spectrogram.unsqueeze(0) - self._mean) / (2 * self._std), labels

    def _read(self, index: int) -> tuple[Waveform, Tensor]:
        """Return the augmented waveform of a clip, with mean 0 before, and its multi-hot labels."""
        name, labels = self._items[index]
        waveform = read_waveform(self._root / name, self._sample_rate)
        multi_hot = torch.zeros(self._num_classes)
        multi_hot[labels] = 1
        waveform = waveform - waveform.mean()
        if self._waveform_augmentation is not None:
            waveform = roll_and_scale(waveform, self._waveform_augmentation)
        return waveform, multi_hot


def read_waveform(path: Path, sample_rate: int) -> Waveform:
    """Return the first channel of a sound file in [-1, 1] at `sample_rate`, at least one frame of 25 ms.

    Raises:
        InputError: as for `m2pt.datasets.sound.read_sound`.
    """
    waveform, rate = read_sound(path)
    if rate == sample_rate:
        return waveform
    from scipy.signal import resample_poly  # imported here: it is slow, and most datasets do not need it

    common = math.gcd(sample_rate, rate)
    return resample_poly(waveform, sample_rate // common, rate // common).astype(np.float32)  # type: ignore[no-any-return]


def check_augmentation(
    augmentation: WaveformAugmentation | SpectrogramAugmentation, input: Mapping[str, Any]
) -> None:
    """Check the masks against the size of a spectrogram.

    Raises:
        InputError: a mask may be longer than its axis.
    """
    if isinstance(augmentation, SpectrogramAugmentation):
        check_masks(augmentation, input["frames"], input["mel_bins"])


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: WaveformAugmentation | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return random spectrograms (B, 1, frames, mel_bins) and multi-hot labels (B, classes), all class 0."""
    labels = torch.zeros(batch_size, num_classes, device=device)
    labels[:, 0] = 1
    return torch.randn(batch_size, 1, input["frames"], input["mel_bins"], device=device), labels


def classes(root: Path) -> list[str]:
    """Return the display names in label order."""
    return list(_classes(root).values())


def mids(root: Path) -> list[str]:
    """Return the ids of the ontology, `/m/...`, in label order.

    Raises:
        InputError: the file of the classes is missing or malformed.
    """
    return list(_classes(root))


def counts(root: Path) -> dict[str, int]:
    """Return the number of clips of each split."""
    return {split: len(_clips(root, split)) for split in LISTS}


def files(root: Path) -> Iterator[Path]:
    """Yield the classes, both lists and every sound file that they name."""
    yield root / CLASSES
    for split, relative in LISTS.items():
        yield root / relative
        yield from (root / name for name, _ in _clips(root, split))


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every problem: lists, labels, missing files, empty classes, sounds that cannot be read.

    The quick check reads a sample of the sounds of each split (`checks.QUICK_SAMPLE`).
    """
    named, problems = _read_classes(root)
    problems += _class_count_problems(root, named, num_classes)
    for split, relative in LISTS.items():
        clips, found = _read_list(root / relative, list(named))
        absent = missing_files(root, (name for name, _ in clips), root / relative)
        problems += found + list(absent.values())
        problems += empty_classes(
            (label for _, labels in clips for label in labels), list(named), root / relative
        )
        present = quick_sample([root / name for name, _ in clips if name not in absent], full=full)
        read = partial(error_of, read_sound)
        problems += check_files(present, read, what=f"audioset {split}", training=split == "train")
    return problems


def _clips(root: Path, split: str) -> list[tuple[str, list[int]]]:
    clips, problems = _read_list(root / LISTS[split], mids(root))
    raise_problems(problems)
    return clips


def _classes(root: Path) -> dict[str, str]:
    """Return {mid: display name} in label order."""
    named, problems = _read_classes(root)
    raise_problems(problems)
    return named


def _read_classes(root: Path) -> tuple[dict[str, str], list[str]]:
    """Return {mid: display name} in label order and a problem for every invalid row."""
    path = root / CLASSES
    try:
        text = read_text(path)
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row] or [[]]
    except InputError as error:
        return {}, [str(error)]
    except csv.Error as error:
        return {}, [f"{path} cannot be read as CSV: {error}."]
    if header != HEADER:
        return {}, [f"{path} must begin with {','.join(HEADER)!r}, got {','.join(header)!r}."]
    named: dict[str, str] = {}
    problems = []
    for label, row in enumerate(rows):
        if len(row) != len(HEADER) or row[0] != str(label) or row[1] in named or not row[1]:
            problems.append(
                f"{path} row {label} must be `{label},<unique mid>,<name>`, got {','.join(row)!r}."
            )
        else:
            named[row[1]] = row[2]
    return named, problems


def _class_count_problems(root: Path, named: Mapping[str, str], num_classes: int) -> list[str]:
    if len(named) == num_classes:
        return []
    return [f"{root / CLASSES} has {len(named)} valid rows, not num_classes = {num_classes}."]


def _read_list(path: Path, mids: Sequence[str]) -> tuple[list[tuple[str, list[int]]], list[str]]:
    """Return (path, labels) of every clip and a problem for each invalid entry or label."""
    try:
        listing = read_listing(path)
    except InputError as error:
        return [], [str(error)]
    entries = listing.get("data") if isinstance(listing, dict) else None
    if not isinstance(entries, list):
        return [], [f'{path} must be {{"data": [...]}} with a list of clips.']
    label_of = {mid: label for label, mid in enumerate(mids)}
    clips, problems = [], [] if entries else [f"{path} lists no clips."]
    for number, entry in enumerate(entries):
        match entry:
            case {"wav": str(name), "labels": str(listed)} if name:
                known = [label_of[mid] for mid in listed.split(",") if mid in label_of]
                problems += [
                    f"{path} entry {number} gives {name} the label {mid!r}, which is not in {CLASSES}."
                    for mid in listed.split(",")
                    if mid not in label_of
                ]
                clips.append((name, known))
            case _:
                problems.append(f'{path} entry {number} must be {{"wav": path, "labels": "mid,mid"}}.')
    return clips, problems + _duplicates(path, clips, allowed=path.name == LISTS["train"])


def _duplicates(path: Path, clips: Sequence[tuple[str, list[int]]], *, allowed: bool) -> list[str]:
    """Return a problem for every duplicate clip, or if they are `allowed`, for those with other labels."""
    folder = path.parent.absolute()
    places = [os.path.normpath(name if name.startswith("/") else f"{folder}/{name}") for name, _ in clips]
    if not allowed:
        return duplicates(places, path, {})
    first: dict[str, list[int]] = {}
    return [
        f"{path} has the duplicate entry {place} with other labels."
        for place, (_, labels) in zip(places, clips, strict=True)
        if set(first.setdefault(place, labels)) != set(labels)
    ]
