"""AudioSet as AST and AudioMAE read it: JSON lists of sound files with labels from the AudioSet ontology.

    class_labels_indices.csv    header `index,mid,display_name`; the index is the label
    train.json, eval.json       {"data": [{"wav": path, "labels": "/m/...,/m/..."}]}; "eval" is our "val"

Paths are relative to the dataset's root. AS-2M and AS-20K are two roots with different lists, which may share
the folders of their sound files through symbolic links.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from m2pt.datasets.audio_augmentation import Augmentation, Waveform, mix
from m2pt.datasets.augmentation import settings_of
from m2pt.datasets.faults import absent_files, empty_classes, file_faults, refuse
from m2pt.datasets.fbank import log_mel
from m2pt.datasets.packed import PackedList
from m2pt.datasets.seeded import SeededDataset
from m2pt.errors import InputError

LISTS = {"train": "train.json", "val": "eval.json"}
CLASSES = "class_labels_indices.csv"
HEADER = ["index", "mid", "display_name"]

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
        mids, faults = _read_classes(root)
        refuse(faults + _class_count_faults(root, mids, num_classes))
        items, faults = _read_list(root / LISTS[split], mids)
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
        energies = log_mel(torch.from_numpy(waveform), sample_rate=self._sample_rate, mel_bins=self._mel_bins)
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
    """Return the first channel of a sound file in [-1, 1] at `sample_rate`, at least one sample.

    Raises:
        InputError: the file is missing, unreadable or without a sample.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(f"{path} cannot be read as a sound file: {error}.") from error
    if not len(samples):
        raise InputError(f"{path} holds no sound.")
    waveform: Waveform = samples[:, 0]
    if rate == sample_rate:
        return waveform
    from scipy.signal import resample_poly  # takes longer to import than most datasets need it

    common = math.gcd(sample_rate, rate)
    return resample_poly(waveform, sample_rate // common, rate // common).astype(np.float32)  # type: ignore[no-any-return]


def classes(root: Path) -> list[str]:
    """Return the display names in label order."""
    with (root / CLASSES).open(newline="", encoding="utf-8") as file:
        return [row["display_name"] for row in csv.DictReader(file)]


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
    """Return every fault: lists, labels, missing files, empty classes, and if `full` unreadable sounds."""
    mids, faults = _read_classes(root)
    faults += _class_count_faults(root, mids, num_classes)
    for split, relative in LISTS.items():
        clips, found = _read_list(root / relative, mids)
        absent = absent_files(root, (name for name, _ in clips), root / relative)
        faults += found + list(absent.values())
        faults += empty_classes(
            (label for _, labels in clips for label in labels), list(mids), root / relative
        )
        if full:
            present = [root / name for name in dict.fromkeys(name for name, _ in clips) if name not in absent]
            faults += file_faults(present, _sound_fault, what=f"audioset {split}")
    return faults


def _clips(root: Path, split: str) -> list[tuple[str, list[int]]]:
    mids, faults = _read_classes(root)
    refuse(faults)
    clips, faults = _read_list(root / LISTS[split], mids)
    refuse(faults)
    return clips


def _read_classes(root: Path) -> tuple[dict[str, int], list[str]]:
    """Return {mid: label} and a fault for every row that is not as it should be."""
    path = root / CLASSES
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        return {}, [f"{path} cannot be read as CSV: {error}."]
    if header != HEADER:
        return {}, [f"{path} begins with {','.join(header)!r}, not {','.join(HEADER)!r}."]
    mids: dict[str, int] = {}
    faults = []
    for label, row in enumerate(rows):
        if len(row) != len(HEADER) or row[0] != str(label) or row[1] in mids:
            faults.append(
                f"{path} row {label} is {','.join(row)!r}, not `{label},<a mid of its own>,<name>`."
            )
        else:
            mids[row[1]] = label
    return mids, faults


def _class_count_faults(root: Path, mids: Mapping[str, int], num_classes: int) -> list[str]:
    if len(mids) == num_classes:
        return []
    return [f"{root / CLASSES} has {len(mids)} good rows, not num_classes = {num_classes}."]


def _read_list(path: Path, mids: Mapping[str, int]) -> tuple[list[tuple[str, list[int]]], list[str]]:
    """Return (path, labels) of every clip and a fault for each entry or label that is not as it should be."""
    try:
        entries = json.loads(path.read_bytes())["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [], [f'{path} cannot be read as {{"data": [...]}}: {error!r}.']
    clips, faults = [], [] if entries else [f"{path} lists no clip."]
    for number, entry in enumerate(entries):
        try:
            name, listed = entry["wav"], entry["labels"].split(",")
        except (KeyError, TypeError, AttributeError):
            faults.append(f'{path} entry {number} is not {{"wav": path, "labels": "mid,mid"}}.')
            continue
        unknown = [mid for mid in listed if mid not in mids]
        faults += [
            f"{path} gives {name} the label {mid!r}, which {CLASSES} does not have." for mid in unknown
        ]
        clips.append((name, [mids[mid] for mid in listed if mid in mids]))
    return clips, faults


def _sound_fault(path: Path) -> str | None:
    """Decode a file; also compare a RIFF file's size with its header, for libsndfile reads what there is."""
    with path.open("rb") as file:
        kind, declared = file.read(4), int.from_bytes(file.read(4), "little")
    streamed = declared == 0xFFFFFFFF  # written to a pipe, where the size was not known
    if kind == b"RIFF" and not streamed and path.stat().st_size < declared + 8:
        return (
            f"{path} is truncated: its header announces {declared + 8} bytes, it has {path.stat().st_size}."
        )
    try:
        for block in soundfile.blocks(path, blocksize=1 << 20, dtype="float32"):
            if not np.isfinite(block).all():
                return f"{path} holds samples that are infinite or not a number."
    except (OSError, soundfile.LibsndfileError) as error:
        return f"{path} cannot be read as a sound file: {error}."
    return None if soundfile.info(path).frames else f"{path} holds no sound."
