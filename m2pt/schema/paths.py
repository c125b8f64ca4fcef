"""Names that become paths, targets and words on a command line: what a config may call them."""

import re
import unicodedata
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, Field

from m2pt.schema.places import FilePath

_LONGEST_NAME = 255
"""Bytes of a file name on the usual file systems."""

_RESULT = re.compile(r"\w[\w.-]*")


def _made_path(path: str) -> str:
    """Refuse what Snakemake or a program that it starts would not take for a part of a path.

    Spaces, quotes, `$`, `;`, `#`, `%` and letters of any script are fine: every command quotes them.
    """
    if "{" in path or "}" in path:
        raise ValueError("must not contain { or }, which Snakemake takes for a wildcard; rename the path")
    if odd := [each for each in path if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")]:
        raise ValueError(f"must not contain the control character {odd[0]!r}; rename the path")
    if str(PurePath(path)).startswith("-"):  # also ./-x, since a Path drops the ./
        raise ValueError("must not begin with -, which programs take for an option; rename the path")
    return path


def _made_folder(path: str) -> str:
    """Refuse also what is no folder of its own, or would be taken for an option or another folder."""
    _made_path(path)
    parts = PurePath(path).parts
    if path and not any(part not in ("..", "/") for part in parts):
        raise ValueError("must be a folder of its own, such as results")
    if parts and parts[0].startswith("~"):
        raise ValueError("must not begin with ~, which nothing replaces here; write the home folder in full")
    if "://" in path:
        raise ValueError("must be a folder on this machine, not a URL")
    if any(len(part.encode()) > _LONGEST_NAME for part in parts):
        raise ValueError(f"must have no part longer than {_LONGEST_NAME} bytes; shorten it")
    return path


MadeFolder = Annotated[str, AfterValidator(_made_folder)]
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
