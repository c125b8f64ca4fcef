"""Paths and names in a config: what they may be called, and where the folders that are made may lie."""

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
        raise ValueError("must not begin with ~, which nothing replaces here; write the home folder in full")
    return path


FilePath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_as_written)]
"""A file or folder that is read."""


def _made_path(path: str) -> str:
    """Refuse what Snakemake or a program that it starts would not take for a part of a path.

    Spaces, quotes, `$`, `;`, `#`, `%` and letters of any script are fine: every command quotes them.
    """
    if "{" in path or "}" in path:
        raise ValueError("must not contain { or }, which Snakemake takes for a wildcard; rename the path")
    if str(PurePath(path)).startswith("-"):  # also ./-x, since a Path drops the ./
        raise ValueError("must not begin with -, which programs take for an option; rename the path")
    return path


def _made_folder(path: str) -> str:
    """Refuse also what is no folder of its own, or would be taken for an option or another folder."""
    _made_path(path)
    parts = PurePath(path).parts
    if path and not any(part not in ("..", "/") for part in parts):
        raise ValueError("must be a folder of its own, such as results")
    if "://" in path:
        raise ValueError("must be a folder on this machine, not a URL")
    if any(len(part.encode()) > _LONGEST_NAME for part in parts):
        raise ValueError(f"must have no part longer than {_LONGEST_NAME} bytes; shorten it")
    return path


MadeFolder = Annotated[str, AfterValidator(_as_written), AfterValidator(_made_folder)]
"""A folder that the workflow fills."""

InputFile = Annotated[FilePath, AfterValidator(_made_path)]
"""A file that the workflow's rules name as an input."""


SubsetName = Annotated[str, Field(max_length=100, pattern=r"^\w[\w-]*$")]
"""Part of a dataset, such as `Chair-1`: a folder of it, and a part of the names of its runs."""


def check_result_name(stem: str, path: str) -> None:
    """Make sure that a table or figure, called after its file, can give its name to results and targets.

    Raises:
        ValueError: the name has other characters than letters, digits, `_`, `-` and `.`.
    """
    if not _RESULT.fullmatch(stem):
        raise ValueError(
            f"tables, figures: {path!r} names its results {stem!r}; give the file a name of letters, digits, "
            "'_', '-' and '.' that begins with a letter or a digit"
        )


LONGEST = 1000
"""Bytes of the path of a folder that is made; those of the files in it have to fit into 4096."""


def check_places(results: str, checkpoints: str, roots: Mapping[str, str]) -> None:
    """Make sure that what is made lies apart from everything else; `roots` are those of datasets, by name.

    Raises:
        ValueError: a folder is, or holds, the folder that one works in or the home folder, or two are one;
            or a file is in its place.
    """
    here, home = Path.cwd().resolve(), Path(os.path.expanduser("~")).resolve()  # noqa: PTH111  # cannot fail
    made = {"results": _resolved(results), "checkpoints": _resolved(checkpoints)}
    for name, path in made.items():
        if len(str(path).encode()) > LONGEST or any(len(part.encode()) > 255 for part in path.parts):
            raise ValueError(f"{name} is too long for a path; choose a shorter one")
        nearest = next(each for each in (path, *path.parents) if os.path.exists(each))  # noqa: PTH110
        if not os.path.isdir(nearest):  # noqa: PTH112  # a Path raises where it may not look
            raise ValueError(f"{name} is {path}, but {nearest} is not a folder; choose another place")
        for taken, what in ((here, "the folder you work in"), (home, "your home folder")):
            if taken.is_relative_to(path):
                raise ValueError(
                    f"{name} is {path}, which is or holds {what}; give a folder of its own, such as {name}"
                )
    if made["results"].is_relative_to(made["checkpoints"]):
        raise ValueError("results lies in checkpoints; give each a folder of its own")
    for name, root in roots.items():
        for what, path in made.items():
            if _resolved(root) == path:
                raise ValueError(f"{what} is the root of dataset {name}; give a folder of its own")


def _resolved(path: str) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError):  # a loop of links
        raise ValueError(f"{path}: a link in it leads back to itself") from None
