"""Where a config's folders lie: the workflow writes into two of them, and `m2pt clean` deletes there."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

FilePath = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Path of a file or folder that is read."""


LONGEST = 1000
"""Bytes of the path of a folder that is made; those of the files in it have to fit into 4096."""


def check_places(results: str, checkpoints: str, roots: Mapping[str, str]) -> None:
    """Make sure that what is made lies apart from everything else; `roots` are those of datasets, by name.

    Raises:
        ValueError: a folder is, or holds, the folder that one works in or the home folder, or two are one.
    """
    here, home = Path.cwd().resolve(), Path(os.path.expanduser("~")).resolve()  # noqa: PTH111  # cannot fail
    made = {"results": _resolved(results), "checkpoints": _resolved(checkpoints)}
    for name, path in made.items():
        if len(str(path).encode()) > LONGEST or any(len(part.encode()) > 255 for part in path.parts):
            raise ValueError(f"{name} is too long for a path; choose a shorter one")
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
