"""Finding the clips of AudioSet and Kinetics on disk."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from m2pt.errors import InputError

YOUTUBE_ID = "[A-Za-z0-9_-]{11}"
"""Pattern of the id of a video."""


def media_files(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Yield the visible files with one of the suffixes below a folder, also behind links, in any order.

    Raises:
        InputError: the folder is missing, or has no such file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the one that holds the downloaded files.")
    is_empty = True
    seen = set()
    with tqdm(desc=f"listing {folder}", unit="file", disable=None) as progress:
        for name, folders, files in os.walk(folder, followlinks=True):
            seen.add(os.path.realpath(name))
            folders[:] = [each for each in folders if _is_new(Path(name, each), seen)]
            progress.update(len(files))
            for file in files:
                if file.lower().endswith(tuple(suffixes)) and not file.startswith("."):
                    is_empty = False
                    yield Path(name, file)
    if is_empty:
        raise InputError(
            f"{folder} has no file that ends in {', '.join(suffixes)}: give the folder that holds the "
            "downloaded files."
        )


def _is_new(folder: Path, seen: set[str]) -> bool:
    return not folder.name.startswith(".") and os.path.realpath(folder) not in seen


def only(paths: Sequence[Path]) -> Path | None:
    """Return the path of a clip that was found at these paths; None if there are none.

    Raises:
        InputError: they lead to several files, not to one and links to it.
    """
    if len(paths) > 1 and len({os.path.realpath(path) for path in paths}) > 1:
        one, other, *_ = sorted(paths)
        raise InputError(f"{one} and {other} are the same clip: give a folder that has it once.")
    return min(paths, default=None)
