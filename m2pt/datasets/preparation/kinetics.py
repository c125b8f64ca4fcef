"""Kinetics from a folder of videos, with the official annotations or in folders of their classes.

    train.csv, validate.csv           annotations with the columns label, youtube_id, time_start, time_end and
                                      split; any names will do, since the column says the split
    <youtube_id>_<start>_<end>.mp4    a video, with times in s as six digits, anywhere below the folder; those
                                      in `replacement*` replace the others, which are damaged

Without annotations: `train/<class>/*.mp4`, `val/<class>/*.mp4`. Both become `train.csv` and `val.csv` with
lines `path label`, and `classes.txt` with the names of the labels. Videos stay where they are.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2pt.datasets.preparation.clips import YOUTUBE_ID, media_files, only
from m2pt.datasets.preparation.lists import check_lists, listed_path, write_lists
from m2pt.datasets.preparation.splits import LEFT_OUT, left_out, sort_out
from m2pt.datasets.reading import read_text, reading
from m2pt.datasets.video import video_problem
from m2pt.errors import InputError, count, listed, short

SPLITS = {"train": ("train",), "val": ("val", "validate")}
"""Names of the splits in the annotations, or of their folders."""

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
CLASSES = "classes.txt"

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")

_NAME = re.compile(rf"{YOUTUBE_ID}(_\d{{6}}_\d{{6}})?", re.ASCII)


@dataclass(frozen=True)
class Video:
    """A published video: its name without suffix, and its class."""

    name: str
    label: str

    def __str__(self) -> str:
        return self.name


def prepare(
    downloads: Path,
    root: Path,
    *,
    num_classes: int | None = None,
    annotations: Path | None = None,
    check: bool = False,
) -> list[str]:
    """Write the lists of the videos below `downloads` to `root`.

    A label is the rank of a class among all that are annotated, sorted by name. Everything but the videos'
    content is checked before the first of them is decoded.

    Args:
        downloads: folder of the videos.
        root: folder of the dataset.
        num_classes: number of classes that there must be; None allows any.
        annotations: folder of the annotations; by default `downloads`, or `annotations` in it.
        check: whether to decode every video, and to leave out those that cannot be decoded.

    Returns:
        What was found, a line each.

    Raises:
        InputError: an annotation is malformed, there are not `num_classes` classes, a split or a class of one
            has no videos, a video is there twice or is that of two annotations, or a list that differs is in
            `root`.
        OSError: the disk is full or not writable.
    """
    published = _read_annotations([annotations] if annotations else [downloads, downloads / "annotations"])
    found = _annotated(published, downloads) if published else _in_folders(downloads)
    for split, videos in found.items():
        if not any(videos.values()):
            raise InputError(
                f"{downloads} has no video of {split} named <youtube_id>_<start>_<end>.mp4 with "
                f"annotations, or in {split}/<class>: give the folder that holds the videos, and "
                "--annotations FOLDER."
            )
    names = sorted({video.label for videos in found.values() for video in videos})
    if num_classes is not None and len(names) != num_classes:
        raise InputError(
            f"{count(len(names), 'class is', 'classes are')} annotated, not num_classes = {num_classes}: "
            f"give the annotations of one dataset, or --num-classes {len(names)}."
        )
    for split, videos in found.items():
        if empty := sorted(set(names) - {video.label for video, path in videos.items() if path}):
            raise InputError(
                f"{downloads} has no video of {split} of the {count(len(empty), 'class', 'classes')} "
                f"{listed(empty, 5)}: get some, or leave them out of the annotations and give --num-classes "
                f"{len(names) - len(empty)}."
            )
    check_lists(root, _lists(found, names, root))
    splits = sort_out(found, video_problem if check else None, root)
    lists = _lists({split.name: split.kept for split in splits}, names, root)
    write_lists(root, {**lists, LEFT_OUT: left_out(splits)})
    return [f"{len(names):,} classes", *(split.summary for split in splits)]


def _lists(
    found: Mapping[str, Mapping[Video, Path | None]], names: Sequence[str], root: Path
) -> dict[str, str]:
    """Return the text of the list of classes and of each split's list, of the videos that are there."""
    labels = {name: label for label, name in enumerate(names)}
    lists = {CLASSES: "".join(f"{name}\n" for name in names)}
    for split, videos in found.items():
        text = io.StringIO()
        rows = csv.writer(text, delimiter=" ", lineterminator="\n")
        rows.writerows(
            (listed_path(path, root), labels[video.label]) for video, path in videos.items() if path
        )
        lists[f"{split}.csv"] = text.getvalue()
    return lists


def _read_annotations(folders: Iterable[Path]) -> dict[str, dict[str, Video]]:
    """Return the annotated videos by split and name; none if no table in the folders has the columns."""
    published: dict[str, dict[str, Video]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*.csv")):
        with reading(path, "a CSV file"):
            for split, video in _read(path):
                if published.setdefault(split, {}).setdefault(video.name, video) != video:
                    raise InputError(
                        f"{path} gives {video} the label {video.label!r}, but an earlier line gives it "
                        f"{published[split][video.name].label!r}: give the annotations of one dataset."
                    )
    return published


def _read(path: Path) -> Iterator[tuple[str, Video]]:
    """Yield the split and the video of each line; none if the table gives no labels of videos."""
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    columns = rows.fieldnames or ()
    if not {"label", "youtube_id"} <= set(columns):
        return
    if missing := [column for column in COLUMNS if column not in columns]:
        raise InputError(f"{path} has no column {listed(missing)}: annotations have {', '.join(COLUMNS)}.")
    for row in rows:
        split, video = _annotation(row, f"{path} line {rows.line_num}")
        if split is not None:
            yield split, video


def _annotation(row: Mapping[str, str | None], where: str) -> tuple[str | None, Video]:
    """Return the split, None if it is one for tests, and the video of a line."""
    if missing := [column for column in COLUMNS if not row[column]]:
        raise InputError(f"{where} has no {listed(missing)}: complete it, or download the annotations again.")
    label, name, first, last, named = (str(row[column]) for column in COLUMNS)
    if not re.fullmatch(YOUTUBE_ID, name):
        raise InputError(f"{where} has the youtube_id {short(name)!r}, which must have 11 characters.")
    split = next((split for split, names in SPLITS.items() if named in names), None)
    if split is None and "test" not in named:
        raise InputError(f"{where} has the split {short(named)!r}, which must be train, validate or test.")
    try:
        start, end = int(first), int(last)
    except ValueError:
        raise InputError(f"{where} has a time that is not in whole seconds.") from None
    if not 0 <= start < end:
        raise InputError(f"{where} ends at {end} s, but starts at {start} s.")
    return split, Video(f"{name}_{start:06}_{end:06}", label)


def _annotated(
    published: Mapping[str, Mapping[str, Video]], downloads: Path
) -> dict[str, dict[Video, Path | None]]:
    """Return the path of each annotated video by split, None if it is missing."""
    files: dict[str, list[Path]] = defaultdict(list)
    replacements: dict[str, list[Path]] = defaultdict(list)
    for path in media_files(downloads, SUFFIXES):
        if _NAME.fullmatch(path.stem):
            is_replacement = any(
                part.startswith("replacement") for part in path.relative_to(downloads).parts[:-1]
            )
            (replacements if is_replacement else files)[path.stem].append(path)

    def path_of(name: str) -> Path | None:
        of_times = [
            found[key] for found in (replacements, files) for key in (name, name[:11]) if key in found
        ]
        return only(of_times[0]) if of_times else None

    return {
        split: {video: path_of(name) for name, video in published.get(split, {}).items()} for split in SPLITS
    }


def _in_folders(downloads: Path) -> dict[str, dict[Video, Path | None]]:
    """Return the videos in folders of splits and classes."""
    found: dict[str, dict[Video, Path | None]] = {}
    for split, names in SPLITS.items():
        found[split] = {}
        for folder in (downloads / name for name in names):
            for path in sorted(media_files(folder, SUFFIXES)) if folder.is_dir() else ():
                label, *rest = path.relative_to(folder).parts
                if len(rest) == 1:
                    found[split][Video(f"{label}/{path.name}", label)] = path
    return found
