"""Writing a miniature: atomically, with a record of its sources, and never over anything else.

A builder reads:

    with staged(root) as folder:
        ...  # write the official layout into `folder`
        write_record(folder, seed=seed, sizes=sizes, sources={"train": [...], "val": [...]})

The bytes must depend on the arguments alone: draw from `numpy.random.default_rng([seed, <a constant of the
module>])`, write no dates, and write files in a fixed order.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from m2pt.atomic import replacing_folder, write_json
from m2pt.errors import InputError

RECORD = "miniature.json"
"""File in a miniature's root that distinguishes it from a real dataset; not part of the official layout."""


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """Yield an empty folder beside `root`, which becomes `root` if the block succeeds and is deleted if not.

    Raises:
        InputError: `root` exists and is neither empty nor a miniature, so it may be your data.
    """
    if root.exists() and not (root / RECORD).is_file() and not _is_empty_folder(root):
        raise InputError(
            f"{root} exists and is not a miniature ({RECORD} is missing): choose another root or remove it."
        )
    with replacing_folder(root) as folder:
        yield folder


def write_record(
    folder: Path, *, seed: int, sizes: Mapping[str, Any], sources: Mapping[str, Sequence[str]]
) -> None:
    """Record how the miniature in `folder` was made: seed, sizes, and the sources of each split.

    A source is the name of anything that must not occur in two splits: a digit, a note, a region of a
    photograph, the parameters of a shape.

    Raises:
        ValueError: two splits share a source.
    """
    owner: dict[str, str] = {}
    for split, items in sources.items():
        for item in items:
            if owner.setdefault(item, split) != split:
                raise ValueError(f"source item {item} is in both {owner[item]} and {split}")
    distinct = {split: sorted(set(items)) for split, items in sources.items()}
    write_json(folder / RECORD, {"seed": seed, "sizes": dict(sizes), "sources": distinct})


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
