"""UR-FUNNY as MultiBench distributes it: word-aligned features of text, sound and video in one pickle.

    humor.pkl                      {"train", "valid", "test"} -> {"text": (n, T, 300), "audio": (n, T, 81),
                                   "vision": (n, T, 371), "labels": (n,)}; or lists of n arrays (T_i, D)
    arrays/<split>/<stream>.npy    (steps, D) float32, the sequences of a split one after another
    arrays/<split>/<stream>_offsets.npy, labels.npy; arrays/source.json

`m2pt data convert` makes the arrays of the pickle. Readers use the arrays alone, because a pickle can only be
read as a whole, by every worker, and because reading one with Python's `pickle` runs what is in it; here it
is read once and nothing is run (see `m2pt.datasets.pickles`). The pickle is not needed afterwards.

The conversion does what AGM's released code does when it loads the data: entries with only zeros as text are
left out, sequences begin at the first step with text, minus infinity in the sound becomes 0, and a label -1
becomes 0. "vision" is our modality "video", and "valid" is our split "val".
"""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2pt.atomic import replacing_folder
from m2pt.datasets.arrays import MappedArray, as_floats, read_labels, rows_problem, value_problem
from m2pt.datasets.augmentations import NoAugmentation
from m2pt.datasets.base import SeededDataset
from m2pt.datasets.checks import empty_classes, quick_sample, raise_problems
from m2pt.datasets.manifest import file_sha256
from m2pt.datasets.multimodal_settings import UrFunnyInput
from m2pt.datasets.padded import collate as collate
from m2pt.datasets.padded import sequence
from m2pt.datasets.pickles import read_pickle
from m2pt.datasets.reading import reading
from m2pt.errors import InputError
from m2pt.formats.documents import read_json

PICKLE = "humor.pkl"
ARRAYS = "arrays"
SOURCE = "source.json"
SPLITS = {"train": "train", "val": "valid", "test": "test"}
STREAMS = {"text": "text", "audio": "audio", "video": "vision"}
"""Keys of the pickle by modality."""

LABELS = ("not humorous", "humorous")

VALUES = (1, 0, -1)
"""Labels in a pickle: 1 is humorous, 0 and -1 are not."""

SYNTHETIC_LENGTH = 50
"""Steps of a synthetic sequence unless `max_length` is given."""


class Reader(SeededDataset):
    """Sequences and labels: `({"text", "audio", "video": {"values": (T, D), "lengths": ()}}, int)`.

    Values are float32. The streams of a sample may differ in length T. Batches are made by `collate`.

    Raises:
        InputError: the arrays are missing or malformed, `num_classes` is not 2, or a stream has another
            number of features than `input` says; when a sample is read, a value of it is not finite.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        seed: int = 0,
        augmentation: NoAugmentation | None = None,
        **input: Any,
    ) -> None:
        super().__init__(seed)
        settings = UrFunnyInput(**input)
        raise_problems(_conversion_problems(root) or _class_count_problems(root, num_classes))
        self._streams, self._labels, problems = _open(root, split)
        raise_problems(problems)
        for modality, (values, _) in self._streams.items():
            features = getattr(settings, modality)
            if values.shape[1] != features:
                raise InputError(
                    f"{values.path} has {values.shape[1]} features per step, not {modality} = {features}."
                )
        self._max_length = settings.max_length

    def __len__(self) -> int:
        return len(self._labels)

    def load(self, index: int) -> tuple[dict[str, dict[str, Tensor]], int]:
        """Read the sequences of sample `index`; of a longer one, the last `max_length` steps."""
        inputs = {}
        for modality, (values, offsets) in self._streams.items():
            start, end = int(offsets[index]), int(offsets[index + 1])
            if self._max_length is not None:
                start = max(start, end - self._max_length)
            steps = values[start:end]
            raise_problems([problem] if (problem := rows_problem(values.path, steps, start)) else [])
            inputs[modality] = sequence(torch.from_numpy(as_floats(steps)))
        return inputs, int(self._labels[index])


def convert(root: Path) -> None:
    """Write the arrays of the pickle in `root`, all or none; existing ones are replaced.

    Raises:
        InputError: the pickle is missing or damaged, names objects, or an entry of it is malformed; existing
            arrays are left as they were.
        OSError: the disk is full or not writable.
    """
    try:
        _convert(root / PICKLE, root / ARRAYS)
    except InputError as error:
        if not (root / ARRAYS).is_dir():
            raise
        raise InputError(
            f"{error} Nothing was converted: readers still use the arrays of an earlier conversion in "
            f"{root / ARRAYS}."
        ) from None


def _convert(path: Path, arrays: Path) -> None:
    content = read_pickle(path)
    with replacing_folder(arrays) as folder:
        for split in SPLITS.values():
            if not isinstance(content, dict) or not isinstance(content.get(split), dict):
                raise InputError(f"{path} must be a dict with a dict for {split!r}.")
            (folder / split).mkdir()
            _write_split(folder / split, content[split], f"{path} {split}")
        source = {"pickle": PICKLE, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        (folder / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: NoAugmentation | None,
    device: torch.device,
) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
    """Return random sequences (B, T, D) of full length by modality, and labels (B,)."""
    settings = UrFunnyInput(**input)
    length = settings.max_length or SYNTHETIC_LENGTH
    inputs = {
        modality: {
            "values": torch.randn(batch_size, length, getattr(settings, modality), device=device),
            "lengths": torch.full((batch_size,), length, device=device),
        }
        for modality in STREAMS
    }
    return inputs, torch.randint(num_classes, (batch_size,), device=device)


def classes(root: Path) -> list[str]:
    """Return the names of the classes."""
    return list(LABELS)


def counts(root: Path) -> dict[str, int]:
    """Return the number of entries of each split, without those that have no text."""
    return {
        split: len(read_labels(root / ARRAYS / folder / "labels.npy", len(LABELS)))
        for split, folder in SPLITS.items()
    }


def files(root: Path) -> Iterator[Path]:
    """Yield the arrays, and the pickle if it is there."""
    if (root / PICKLE).exists():
        yield root / PICKLE
    yield root / ARRAYS / SOURCE
    for folder in SPLITS.values():
        yield root / ARRAYS / folder / "labels.npy"
        for modality in STREAMS:
            yield from _paths(root / ARRAYS / folder, modality)


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every problem: no conversion or one of another pickle, shapes, offsets, labels, values.

    The quick check reads a sample of the sequences of each split (`checks.QUICK_SAMPLE`) and compares the
    size of the pickle with that of the one that was converted; its SHA-256 only if it is the newer file. The
    full check always does.
    """
    problems = _class_count_problems(root, num_classes)
    if missing := _conversion_problems(root):
        return problems + missing
    problems += _source_problems(root, full=full)
    features: dict[str, dict[int, Path]] = {modality: {} for modality in STREAMS}
    for split in SPLITS:
        streams, labels, found = _open(root, split)
        problems += found
        if len(labels):
            problems += empty_classes(labels.tolist(), LABELS, root / ARRAYS / SPLITS[split] / "labels.npy")
        for modality, (values, offsets) in streams.items():
            features[modality].setdefault(values.shape[1], values.path)
            problem = value_problem(values) if full else _sample_problem(values, offsets)
            problems += [problem] if problem else []
    for found_features in features.values():
        (first, path), *others = [*found_features.items()] or [(0, root)]
        problems += [
            f"{other} has {number} features per step, but {path} has {first}." for number, other in others
        ]
    return problems


def _write_split(folder: Path, entries: Mapping[Any, Any], where: str) -> None:
    """Write the arrays of a split; `where` names it in messages."""
    texts = _sequences(entries, "text", where)
    kept, starts = [], []
    for number, text in enumerate(texts):
        spoken = np.flatnonzero(np.any(text != 0, axis=1))
        if len(spoken):
            kept.append(number)
            starts.append(int(spoken[0]))
    if not kept:
        raise InputError(f"{where} has no entry with text.")
    for modality, key in STREAMS.items():
        whole = texts if modality == "text" else _sequences(entries, key, where)
        if len(whole) != len(texts):
            raise InputError(f"{where} has {len(whole)} entries of {key}, but {len(texts)} of text.")
        cut = []
        for number, start in zip(kept, starts, strict=True):
            steps = whole[number][start:]
            if not len(steps):
                raise InputError(f"{where} entry {number} has no step of {key} from its first word on.")
            if modality == "audio":
                steps = np.where(np.isneginf(steps), np.float32(0), steps)
            if not np.isfinite(steps).all():
                raise InputError(f"{where} entry {number} has values of {key} that are infinite or NaN.")
            cut.append(steps)
        if len({steps.shape[1] for steps in cut}) > 1:
            raise InputError(f"{where} has entries of {key} with different numbers of features.")
        values, offsets = _paths(folder, modality)
        np.save(values, np.concatenate(cut), allow_pickle=False)
        ends = np.cumsum([0, *(len(steps) for steps in cut)], dtype=np.int64)
        np.save(offsets, ends, allow_pickle=False)
    labels = _binary_labels(entries.get("labels"), len(texts), where)
    np.save(folder / "labels.npy", labels[kept], allow_pickle=False)


def _sequences(entries: Mapping[Any, Any], key: str, where: str) -> list[NDArray[np.float32]]:
    """Return the entries of a stream as arrays (T, D)."""
    stored = entries.get(key)
    if not isinstance(stored, list | tuple | np.ndarray):
        raise InputError(f"{where} must have an array or a list of arrays {key!r}.")
    sequences = []
    for number, entry in enumerate(stored):
        try:
            given = np.asarray(entry, np.float64)
        except (TypeError, ValueError):
            given = np.empty(0)
        with np.errstate(over="ignore"):
            steps = given.astype(np.float32)
        if steps.ndim != 2 or not steps.size:
            raise InputError(
                f"{where} entry {number} of {key} must be numbers of shape (steps, features), at least one "
                "of each."
            )
        if (np.isinf(steps) & np.isfinite(given)).any():
            raise InputError(
                f"{where} entry {number} of {key}: a value is beyond 3.4e38, which float32 cannot hold."
            )
        sequences.append(steps)
    return sequences


def _binary_labels(stored: Any, count: int, where: str) -> NDArray[np.int64]:
    try:
        labels = np.asarray(stored, np.float64).reshape(-1)
    except (TypeError, ValueError):
        labels = np.empty(0)
    if len(labels) != count:
        raise InputError(f"{where} must have 'labels' with one number for each of its {count} entries.")
    if (wrong := np.flatnonzero(~np.isin(labels, VALUES))).size:
        raise InputError(
            f"{where} entry {wrong[0]} has the label {labels[wrong[0]]:g}, which must be one of "
            f"{', '.join(map(str, VALUES))}."
        )
    return (labels == 1).astype(np.int64)


def _paths(folder: Path, modality: str) -> tuple[Path, Path]:
    """Return the paths of a stream's values and offsets."""
    return folder / f"{modality}.npy", folder / f"{modality}_offsets.npy"


def _open(
    root: Path, split: str
) -> tuple[dict[str, tuple[MappedArray, NDArray[np.int64]]], NDArray[np.int64], list[str]]:
    """Return values and offsets of the sound streams of a split, its labels, and a problem for each fault."""
    folder = root / ARRAYS / SPLITS[split]
    streams, labels, problems = {}, np.empty(0, np.int64), []
    try:
        labels = read_labels(folder / "labels.npy", len(LABELS))
        if not len(labels):
            problems.append(f"{folder / 'labels.npy'} has no labels.")
    except InputError as error:
        return {}, labels, [str(error)]
    for modality in STREAMS:
        try:
            streams[modality] = _open_stream(folder, modality, len(labels))
        except InputError as error:
            problems.append(str(error))
    return streams, labels, problems


def _open_stream(folder: Path, modality: str, count: int) -> tuple[MappedArray, NDArray[np.int64]]:
    values, offsets = (MappedArray(path) for path in _paths(folder, modality))
    if len(values.shape) != 2 or not values.shape[1] or not np.issubdtype(values.dtype, np.floating):
        raise InputError(
            f"{values.path} must be floats of shape (steps, features), got {values.dtype} of shape "
            f"{values.shape}."
        )
    if offsets.shape != (count + 1,) or not np.issubdtype(offsets.dtype, np.signedinteger):
        raise InputError(
            f"{offsets.path} must be {count + 1} integers, one more than there are labels, got "
            f"{offsets.dtype} of shape {offsets.shape}."
        )
    ends = offsets[:].astype(np.int64)
    if ends[0] != 0 or ends[-1] != len(values):
        raise InputError(
            f"{offsets.path} must go from 0 to the {len(values)} steps of {values.path.name}, got "
            f"{ends[0]} to {ends[-1]}."
        )
    if (empty := np.flatnonzero(np.diff(ends) < 1)).size:
        raise InputError(f"{offsets.path} row {empty[0] + 1} gives sequence {empty[0]} no steps.")
    return values, ends


def _sample_problem(values: MappedArray, offsets: NDArray[np.int64]) -> str | None:
    bounds = quick_sample(list(pairwise(offsets.tolist())), full=False)
    found = (rows_problem(values.path, values[start:end], start) for start, end in bounds)
    return next((problem for problem in found if problem), None)


def _conversion_problems(root: Path) -> list[str]:
    if (root / ARRAYS).is_dir():
        return []
    if (root / PICKLE).exists():
        return [f"{root / PICKLE} is not converted yet: run `m2pt data convert urfunny {root}`."]
    return [f"{root / PICKLE} is missing, and so are its arrays {root / ARRAYS}."]


def _source_problems(root: Path, *, full: bool) -> list[str]:
    """Return a problem if the arrays were not made of the pickle beside them."""
    path = root / ARRAYS / SOURCE
    try:
        source = read_json(path)
        if not (root / PICKLE).exists():
            return []
        with reading(root / PICKLE, "a file"):
            found: dict[str, Any] = {"bytes": (root / PICKLE).stat().st_size}
            is_newer = (root / PICKLE).stat().st_mtime_ns >= path.stat().st_mtime_ns
            found |= {"sha256": file_sha256(root / PICKLE)} if full or is_newer else {}
    except InputError as error:
        return [str(error)]
    if isinstance(source, dict) and all(source.get(key) == value for key, value in found.items()):
        return []
    return [f"{path} is that of another {PICKLE}: run `m2pt data convert urfunny {root}` again."]


def _class_count_problems(root: Path, num_classes: int) -> list[str]:
    if num_classes == len(LABELS):
        return []
    return [f"{root / ARRAYS} has {len(LABELS)} classes, not num_classes = {num_classes}."]
