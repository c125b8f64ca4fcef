"""Splits of AudioSet and Kinetics: clips that are missing or cannot be read are left out, and said to be."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from m2pt.datasets.preparation.readability import unreadable
from m2pt.errors import InputError, count

LEFT_OUT = "left_out.txt"
"""List of the clips that are left out, with the reasons."""

Clip = TypeVar("Clip")


@dataclass(frozen=True)
class Split(Generic[Clip]):
    """The clips of a split.

    Attributes:
        name: its name.
        kept: path of each clip that is there, and can be read if that was checked.
        left_out: a sentence for each other one.
        summary: how many there are.
    """

    name: str
    kept: dict[Clip, Path]
    left_out: list[str]
    summary: str


def sort_out(
    found: Mapping[str, Mapping[Clip, Path | None]], problem: Callable[[Path], str | None] | None, root: Path
) -> list[Split[Clip]]:
    """Leave out the clips that are missing or cannot be read.

    Args:
        found: by split, the clips that were published and their paths, None if they are missing.
        problem: reads a file and returns its problem, if there is one; None to read none.
        root: folder of the dataset, which keeps a record of the files that were read.

    Raises:
        InputError: a file is that of two clips, or of a split none can be read.
    """
    _check_files(found)
    paths = dict.fromkeys(path for clips in found.values() for path in clips.values() if path)
    broken = unreadable(paths, problem, root) if problem else {}
    return [_sort_out(name, clips, broken) for name, clips in found.items()]


def _check_files(found: Mapping[str, Mapping[Clip, Path | None]]) -> None:
    """Check that no file is that of two clips: a name without times may be that of any part of a video."""
    first: dict[Path, tuple[str, Clip]] = {}
    for split, clips in found.items():
        for clip, path in clips.items():
            if path and (known := first.setdefault(path, (split, clip))) != (split, clip):
                again = " with another label" if str(clip) == str(known[1]) and clip != known[1] else ""
                raise InputError(
                    f"{path} is the file of two clips: {known[0]} lists {known[1]}, and {split} lists "
                    f"{clip}{again}. Give each a file whose name has its times, or list one of them."
                )


def _sort_out(name: str, clips: Mapping[Clip, Path | None], broken: Mapping[Path, str]) -> Split[Clip]:
    kept, missing, unread = {}, [], []
    for clip, path in clips.items():
        if path is None:
            missing.append(f"{name}: {clip} is missing.")
        elif path in broken:
            unread.append(f"{name}: {broken[path]}")
        else:
            kept[clip] = path
    if unread and not kept:
        raise InputError(f"none of the {len(unread):,} clips of {name} can be read. The first: {unread[0]}")
    summary = f"{name}: {len(kept):,} of {count(len(clips), 'clip', 'clips')}"
    if missing or unread:
        summary += f"; {len(missing):,} missing, {len(unread):,} unreadable: see {LEFT_OUT}"
    return Split(name, kept, missing + unread, summary)


def left_out(splits: Iterable[Split[Clip]]) -> str:
    """Return the text of the list of what is left out, empty if nothing is."""
    return "".join(f"{line}\n" for split in splits for line in split.left_out)
