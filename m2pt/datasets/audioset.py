"""AudioSet as AST and AudioMAE read it: JSON lists of sound files with labels from the AudioSet ontology.

    class_labels_indices.csv    header `index,mid,display_name`; the index is the label
    train.json, eval.json       {"data": [{"wav": path, "labels": "/m/...,/m/..."}]}; "eval" is our "val"

Paths are relative to the dataset's root or absolute. AS-2M and AS-20K are two roots with different lists,
which may share the folders of their sound files through symbolic links. train.json may list a clip several
times, with the same labels: it is then drawn as often. In eval.json it would count several times.
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

from m2pt.datasets.audio_augmentation import Augmentation, Waveform, mix
from m2pt.datasets.augmentation import settings_of
from m2pt.datasets.faults import absent_files, empty_classes, fault_of, file_faults, refuse, repeated, sampled
from m2pt.datasets.fbank import FRAME_SECONDS, SHIFT_SECONDS, log_mel
from m2pt.datasets.listings import read_text
from m2pt.datasets.packed import PackedList
from m2pt.datasets.seeded import SeededDataset
from m2pt.datasets.sound import read_sound
from m2pt.errors import InputError
from m2pt.formats.documents import read_listing

LISTS = {"train": "train.json", "val": "eval.json"}
CLASSES = "class_labels_indices.csv"
HEADER = ["index", "mid", "display_name"]

FRAMES = 8192
"""A longer clip's spectrogram is computed up to here, or to what is asked for: an hour's takes gigabytes."""

MEAN, STD = -4.2677393, 4.5689974
"""Mean and standard deviation of AudioSet's log mel energies (AudioMAE); the division is by twice `STD`."""


class Reader(SeededDataset):
    """Log mel spectrograms and labels: `(float32 (1, frames, mel_bins), multi-hot float32 (num_classes,))`.

    The waveform is the first channel in [-1, 1], resampled to `sample_rate` if need be, minus its mean. Its
    log mel energies are filled up with zeros or cut to `frames` (10 ms each) and then normalised as
    (x - mean) / (2 std), so that the filling is not zero (0.467 with AudioSet's constants), as in AST.

    `augmentation` has the optional keys of `Augmentation`; `None` is the clip as it is. A clip is mixed with
    another of the same list before the spectrogram is computed, and labels are mixed alike: a class that only
    one of the two has gets that clip's share. Masks are zeros before the normalisation, like the filling.

    Raises:
        InputError: a list or the classes are missing or malformed, a label is unknown, the number of classes
            is not `num_classes`, or a mask does not fit; when an item is read, its file is unreadable or
            empty.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        frames: int = 1024,
        mel_bins: int = 128,
        sample_rate: int = 16000,
        mean: float = MEAN,
        std: float = STD,
        seed: int = 0,
        augmentation: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(seed)
        named, faults = _read_classes(root)
        refuse(faults + _class_count_faults(root, named, num_classes))
        items, faults = _read_list(root / LISTS[split], list(named))
        refuse(faults)
        self._items = PackedList(items)
        self._root = root
        self._num_classes = num_classes
        self._frames, self._mel_bins, self._sample_rate = frames, mel_bins, sample_rate
        self._mean, self._std = mean, std
        self._augmentation = settings_of(Augmentation, augmentation) or Augmentation()
        self._augmentation.check_fit(frames, mel_bins)

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Read clip `index`, augment it and compute its spectrogram."""
        waveform, labels = self._read(index)
        share = self._augmentation.draw_mixup()
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
        self._augmentation.mask(spectrogram)
        return (spectrogram.unsqueeze(0) - self._mean) / (2 * self._std), labels

    def _read(self, index: int) -> tuple[Waveform, Tensor]:
        """Return the waveform of a clip, without its mean and jittered, and its labels, multi-hot."""
        name, labels = self._items[index]
        waveform = read_waveform(self._root / name, self._sample_rate)
        multi_hot = torch.zeros(self._num_classes)
        multi_hot[labels] = 1
        return self._augmentation.jitter(waveform - waveform.mean()), multi_hot


def read_waveform(path: Path, sample_rate: int) -> Waveform:
    """Return the first channel of a sound file in [-1, 1] at `sample_rate`, at least one frame of 25 ms.

    Raises:
        InputError: as for `m2pt.datasets.sound.read_sound`.
    """
    waveform, rate = read_sound(path)
    if rate == sample_rate:
        return waveform
    from scipy.signal import resample_poly  # takes longer to import than most datasets need it

    common = math.gcd(sample_rate, rate)
    return resample_poly(waveform, sample_rate // common, rate // common).astype(np.float32)  # type: ignore[no-any-return]


def classes(root: Path) -> list[str]:
    """Return the display names in label order."""
    named, faults = _read_classes(root)
    refuse(faults)
    return list(named.values())


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
    """Return every fault: lists, labels, missing files, empty classes, sounds that cannot be read.

    The quick form reads a sample of the sounds of each split (`faults.QUICK_SAMPLE`).
    """
    named, faults = _read_classes(root)
    faults += _class_count_faults(root, named, num_classes)
    for split, relative in LISTS.items():
        clips, found = _read_list(root / relative, list(named))
        absent = absent_files(root, (name for name, _ in clips), root / relative)
        faults += found + list(absent.values())
        faults += empty_classes(
            (label for _, labels in clips for label in labels), list(named), root / relative
        )
        present = sampled([root / name for name, _ in clips if name not in absent], full=full)
        faults += file_faults(present, partial(fault_of, read_sound), what=f"audioset {split}")
    return faults


def _clips(root: Path, split: str) -> list[tuple[str, list[int]]]:
    named, faults = _read_classes(root)
    refuse(faults)
    clips, faults = _read_list(root / LISTS[split], list(named))
    refuse(faults)
    return clips


def _read_classes(root: Path) -> tuple[dict[str, str], list[str]]:
    """Return {mid: display name} in label order and a fault for every row that is not as it should be."""
    path = root / CLASSES
    try:
        text = read_text(path)
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row] or [[]]
    except InputError as error:
        return {}, [str(error)]
    except csv.Error as error:
        return {}, [f"{path} cannot be read as CSV: {error}."]
    if header != HEADER:
        return {}, [f"{path} begins with {','.join(header)!r}, not {','.join(HEADER)!r}."]
    named: dict[str, str] = {}
    faults = []
    for label, row in enumerate(rows):
        if len(row) != len(HEADER) or row[0] != str(label) or row[1] in named or not row[1]:
            faults.append(
                f"{path} row {label} is {','.join(row)!r}, not `{label},<a mid of its own>,<name>`."
            )
        else:
            named[row[1]] = row[2]
    return named, faults


def _class_count_faults(root: Path, named: Mapping[str, str], num_classes: int) -> list[str]:
    if len(named) == num_classes:
        return []
    return [f"{root / CLASSES} has {len(named)} good rows, not num_classes = {num_classes}."]


def _read_list(path: Path, mids: Sequence[str]) -> tuple[list[tuple[str, list[int]]], list[str]]:
    """Return (path, labels) of every clip and a fault for each entry or label that is not as it should be."""
    try:
        listing = read_listing(path)
    except InputError as error:
        return [], [str(error)]
    entries = listing.get("data") if isinstance(listing, dict) else None
    if not isinstance(entries, list):
        return [], [f'{path} is not {{"data": [...]}} with a list of clips.']
    label_of = {mid: label for label, mid in enumerate(mids)}
    clips, faults = [], [] if entries else [f"{path} lists no clip."]
    for number, entry in enumerate(entries):
        match entry:
            case {"wav": str(name), "labels": str(listed)} if name:
                known = [label_of[mid] for mid in listed.split(",") if mid in label_of]
                faults += [
                    f"{path} entry {number} gives {name} the label {mid!r}, which {CLASSES} does not have."
                    for mid in listed.split(",")
                    if mid not in label_of
                ]
                clips.append((name, known))
            case _:
                faults.append(f'{path} entry {number} is not {{"wav": path, "labels": "mid,mid"}}.')
    return clips, faults + _repeated(path, clips, allowed=path.name == LISTS["train"])


def _repeated(path: Path, clips: Sequence[tuple[str, list[int]]], *, allowed: bool) -> list[str]:
    """Return a fault for every clip that is listed again, or, if that is `allowed`, with other labels."""
    folder = path.parent.absolute()
    places = [os.path.normpath(name if name.startswith("/") else f"{folder}/{name}") for name, _ in clips]
    if not allowed:
        return repeated(places, path, {})
    first: dict[str, list[int]] = {}
    return [
        f"{path} lists {place} again, with other labels."
        for place, (_, labels) in zip(places, clips, strict=True)
        if set(first.setdefault(place, labels)) != set(labels)
    ]
