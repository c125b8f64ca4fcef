"""AudioSet from its official lists of segments and a folder of clips.

    balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv
                                  lines `YTID, start_seconds, end_seconds, "mid,mid"` after comments with #
    class_labels_indices.csv      the classes
    <YTID>.wav                    a clip, anywhere below the folder; also `Y<YTID>`, `<YTID>_<start>` and
                                  `<YTID>_<start>_<end>` with times in s or ms, and other formats of sound

They become `train.json`, `eval.json` and `class_labels_indices.csv`. Clips stay where they are.
"""

import csv
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from m2pt.datasets.preparation.clips import YOUTUBE_ID, media_files, only
from m2pt.datasets.preparation.lists import check_lists, listed_path, write_lists
from m2pt.datasets.preparation.splits import LEFT_OUT, left_out, sort_out
from m2pt.datasets.reading import read_text, reading
from m2pt.errors import InputError, count, listed, short

CLASSES = "class_labels_indices.csv"
BALANCED, UNBALANCED, EVAL = (
    f"{name}_segments.csv" for name in ("balanced_train", "unbalanced_train", "eval")
)

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".aiff", ".aif", ".au")

INPUT = {"frames": 1024, "mel_bins": 128, "sample_rate": 16000}
MEAN, STD = -4.2677393, 4.5689974
"""Input of AST and AudioMAE, and mean and standard deviation of their spectrograms of AudioSet."""

SAME = 0.05
"""Largest difference of a mean or standard deviation from the published one that is not worth a change."""

_TIME = r"\d+(\.\d+)?"
_NAME = re.compile(rf"Y?(?P<id>{YOUTUBE_ID})(_(?P<start>{_TIME})(_{_TIME})?)?", re.ASCII)
"""Of a clip, without its suffix. An id has 11 characters, so that a Y before it cannot be mistaken."""


@dataclass(frozen=True)
class Segment:
    """A line of a list: YouTube id, start in seconds, and labels `mid,mid`."""

    id: str
    start: float
    labels: str

    def __str__(self) -> str:
        return f"{self.id} from {self.start:g} s"

    def has_clip(self, start: str | None) -> bool:
        """Return whether a clip whose name has this start, in s or ms, is of this segment."""
        return start is None or float(start) in (self.start, 1000 * self.start)


def prepare(
    downloads: Path,
    root: Path,
    *,
    num_classes: int | None = None,
    annotations: Path | None = None,
    unbalanced: bool = False,
    check: bool = False,
    statistics: int = 20_000,
) -> list[str]:
    """Write the lists of the clips below `downloads` to `root`, and compute the statistics of spectrograms.

    Everything but the clips' content is checked before the first of them is read.

    Args:
        downloads: folder of the clips.
        root: folder of the dataset.
        num_classes: number of classes that there must be; None allows any.
        annotations: folder of the official lists; `downloads` by default.
        unbalanced: whether the unbalanced segments are for training too (AS-2M); else only the balanced ones.
        check: whether to read every clip, and to leave out those that cannot be read.
        statistics: most training clips for the mean and standard deviation; 0 for none.

    Returns:
        What was found, a line each.

    Raises:
        InputError: a list is missing or malformed, there are not `num_classes` classes, a video is in both
            splits, there is no clip for a split or a class of one, a clip is there twice or is that of two
            segments, or a list that differs is in `root`; a clip for the statistics cannot be read.
        OSError: the disk is full or not writable.
    """
    folder = annotations or downloads
    sources = {
        "train": [folder / name for name in ((BALANCED, UNBALANCED) if unbalanced else (BALANCED,))],
        "eval": [folder / EVAL],
    }
    mids = _mids(folder, num_classes)
    segments = {
        split: [each for path in paths for each in _read(path, mids)] for split, paths in sources.items()
    }
    _check_videos(segments["train"], segments["eval"], folder)
    files = _clips_by_id(downloads)
    found = {split: {each: _clip(each, files) for each in all_} for split, all_ in segments.items()}
    for split, clips in found.items():
        if not any(clips.values()):
            raise InputError(
                f"{downloads} has no clip of {', '.join(path.name for path in sources[split])}: names "
                "must be <YTID>.wav, Y<YTID>.wav or <YTID>_<start>.wav; give the folder that holds the clips."
            )
        present = (segment.labels.split(",") for segment, path in clips.items() if path)
        if empty := sorted(mids - {mid for labels in present for mid in labels}):
            raise InputError(
                f"{downloads} has no clip of {split} of the {count(len(empty), 'class', 'classes')} "
                f"{listed(empty, 5)}: get some, or remove them from {CLASSES} and the lists."
            )
    classes = {CLASSES: read_text(folder / CLASSES)}
    check_lists(root, {**classes, **_lists(found, root)})
    splits = sort_out(found, _problem() if check else None, root)
    lists = _lists({split.name: split.kept for split in splits}, root)
    write_lists(root, {**classes, **lists, LEFT_OUT: left_out(splits)})
    lines = [split.summary for split in splits]
    return [*lines, _statistics(root, statistics)] if statistics else lines


def _mids(folder: Path, num_classes: int | None) -> set[str]:
    """Return the mids of the classes."""
    from m2pt.datasets.audioset import mids  # imported here: it imports torch

    found = mids(folder)
    if num_classes is not None and len(found) != num_classes:
        raise InputError(
            f"{folder / CLASSES} has {count(len(found), 'class', 'classes')}, not num_classes = {num_classes}"
            f": give the official file, or --num-classes {len(found)}."
        )
    return set(found)


def _check_videos(train: Iterable[Segment], evaluated: Iterable[Segment], folder: Path) -> None:
    """Check that no video is in both splits: the evaluation would be one of clips that were trained on."""
    ids = {segment.id for segment in evaluated}
    if shared := sorted({segment.id for segment in train} & ids):
        raise InputError(
            f"{count(len(shared), 'video is', 'videos are')} listed for training and in {folder / EVAL}, "
            f"such as {shared[0]}: remove each from one of the lists, or download the official ones again."
        )


def _lists(found: Mapping[str, Mapping[Segment, Path | None]], root: Path) -> dict[str, str]:
    """Return the text of each split's list, of the clips that are there."""
    lists = {}
    for split, clips in found.items():
        entries = (
            json.dumps({"wav": listed_path(path, root), "labels": segment.labels})
            for segment, path in clips.items()
            if path
        )
        lists[f"{split}.json"] = '{"data": [\n' + ",\n".join(entries) + "\n]}\n"
    return lists


def _read(path: Path, mids: Set[str]) -> Iterator[Segment]:
    """Yield the segments of an official list."""
    rows = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    with reading(path, "a CSV file"):
        for row in rows:
            if row and not row[0].startswith("#"):
                segment = _segment(row, f"{path} line {rows.line_num}")
                if unknown := set(segment.labels.split(",")) - mids:
                    raise InputError(
                        f"{path} line {rows.line_num} has the label {short(min(unknown))!r}, which is not in "
                        f"{CLASSES}: give lists of one release."
                    )
                yield segment


def _segment(row: Sequence[str], where: str) -> Segment:
    try:
        name, start, end, labels = row
        if re.fullmatch(YOUTUBE_ID, name) and 0 <= float(start) < float(end) < math.inf:
            return Segment(name, float(start), labels)
    except ValueError:
        pass
    raise InputError(
        f'{where} must be `YTID, start_seconds, end_seconds, "mid,mid"`, with an id of 11 characters, got '
        f"{short(', '.join(row))!r}."
    )


def _clips_by_id(folder: Path) -> dict[str, list[tuple[Path, str | None]]]:
    """Return the path and the start in the name of the clips in a folder, by YouTube id."""
    clips: dict[str, list[tuple[Path, str | None]]] = defaultdict(list)
    for path in media_files(folder, SUFFIXES):
        if name := _NAME.fullmatch(path.stem):
            clips[name["id"]].append((path, name["start"]))
    return clips


def _clip(segment: Segment, files: Mapping[str, list[tuple[Path, str | None]]]) -> Path | None:
    """Return the clip of a segment, None if it is missing."""
    return only([path for path, start in files.get(segment.id, ()) if segment.has_clip(start)])


def _problem() -> Callable[[Path], str | None]:
    from m2pt.datasets.checks import error_of
    from m2pt.datasets.sound import read_sound  # imported here: it imports torch

    return partial(error_of, read_sound)


def _statistics(root: Path, clips: int) -> str:
    from m2pt.datasets.preparation.spectrograms import measure  # imported here: it imports torch

    try:
        number, mean, std = measure(root, clips, **INPUT)
    except InputError as error:
        raise InputError(
            f"{error} Remove train.json, eval.json and {LEFT_OUT} from {root} and give --check, which leaves "
            "such clips out."
        ) from error
    line = (
        f"spectrograms of {count(number, 'training clip', 'training clips')}: mean {mean:.4f}, standard "
        f"deviation {std:.4f} (AST and AudioMAE: {MEAN:.4f}, {STD:.4f})"
    )
    if abs(mean - MEAN) < SAME and abs(std - STD) < SAME:
        return line
    return (
        f"{line}. To train without published weights, set in your config modalities: audio: input: "
        f"{{mean: {mean:.4f}, std: {std:.4f}}}"
    )
