"""Paths in a config: their syntax, and where the folders that the workflow writes to may be."""

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Annotated

from pydantic import AfterValidator, Field

_LONGEST_NAME = 255
"""Bytes of a file name on the usual file systems."""

_RESULT = re.compile(r"\w[\w.-]*")


def _as_written(path: str) -> str:
    if odd := [each for each in path if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")]:
        raise ValueError(f"must not contain the control character {odd[0]!r}; rename the path")
    if str(PurePath(path)).startswith("~"):
        raise ValueError("must not begin with ~, which is not expanded; write the home folder in full")
    return path


FilePath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_as_written)]
"""A file or folder to read."""


def _made_path(path: str) -> str:
    """Reject characters that Snakemake, or a program that it starts, would misread in a path.

    Spaces, quotes, `$`, `;`, `#`, `%` and letters of any script are allowed: every command quotes them.
    """
    if "{" in path or "}" in path:
        raise ValueError("must not contain { or }, which Snakemake reads as a wildcard; rename the path")
    if str(PurePath(path)).startswith("-"):  # also ./-x, since a Path drops the ./
        raise ValueError("must not begin with -, which programs read as an option; rename the path")
    return path


def _made_folder(path: str) -> str:
    """Also reject the current folder and its parents, URLs, and names that are too long."""
    _made_path(path)
    parts = PurePath(path).parts
    if path and not any(part not in ("..", "/") for part in parts):
        raise ValueError("must be a dedicated folder, such as results")
    if "://" in path:
        raise ValueError("must be a folder on this machine, not a URL")
    if any(len(part.encode()) > _LONGEST_NAME for part in parts):
        raise ValueError(f"no part may be longer than {_LONGEST_NAME} bytes; shorten it")
    return path


MadeFolder = Annotated[str, AfterValidator(_as_written), AfterValidator(_made_folder)]
"""A folder that the workflow writes to."""

InputFile = Annotated[FilePath, AfterValidator(_made_path)]
"""A file that is an input of the workflow's rules."""


def check_result_name(stem: str, path: str) -> None:
    """Make sure that the name of a table's or figure's file can be used for its results and targets.

    Raises:
        ValueError: the name has characters other than letters, digits, `_`, `-` and `.`.
    """
    if not _RESULT.fullmatch(stem):
        raise ValueError(
            f"tables, figures: results are named after the file {path!r}; rename it to letters, digits, '_', "
            "'-' and '.', beginning with a letter or a digit"
        )


LONGEST = 1000
"""Bytes of the path of such a folder; the paths of the files in it must fit into 4096."""


def check_places(results: str, checkpoints: str, roots: Mapping[str, str]) -> None:
    """Make sure that the folders that the workflow writes to hold nothing else.

    Args:
        results: the config's `results`.
        checkpoints: the config's `checkpoints`.
        roots: roots of the datasets, by name.

    Raises:
        ValueError: a folder is or contains the current folder or the home folder, two of them coincide, or
            one is a file.
    """
    here, home = Path.cwd().resolve(), Path(os.path.expanduser("~")).resolve()  # noqa: PTH111  # cannot fail
    made = {"results": _resolved(results), "checkpoints": _resolved(checkpoints)}
    for name, path in made.items():
        longest = max(len(part.encode()) for part in path.parts)
        if len(str(path).encode()) > LONGEST or longest > _LONGEST_NAME:
            raise ValueError(f"{name} is too long for a path; choose a shorter one")
        nearest = next(each for each in (path, *path.parents) if os.path.exists(each))  # noqa: PTH110
        if not os.path.isdir(nearest):  # noqa: PTH112  # Path.is_dir raises without permission
            raise ValueError(f"{name} is {path}, but {nearest} is not a folder; choose another path")
        for taken, what in ((here, "the current folder"), (home, "your home folder")):
            if taken.is_relative_to(path):
                raise ValueError(
                    f"{name} is {path}, which is or contains {what}; give a dedicated folder, such as {name}"
                )
    if made["results"].is_relative_to(made["checkpoints"]):
        raise ValueError("results must not be inside checkpoints; give each a dedicated folder")
    for name, root in roots.items():
        for what, path in made.items():
            if _resolved(root) == path:
                raise ValueError(f"{what} is the root of dataset {name}; give a dedicated folder")


def _resolved(path: str) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError):  # a loop of links
        raise ValueError(f"{path}: a link in it leads back to itself") from None
