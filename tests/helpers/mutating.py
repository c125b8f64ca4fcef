"""Ways to damage any file of a dataset."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Mutation = tuple[str, str, Callable[[Path], Any]]
"""What is done, which form of the check refuses it ("quick", "full" or, if neither, "sound"), and how."""


def text(relative: str, content: str | bytes) -> Callable[[Path], Any]:
    encoded = content.encode() if isinstance(content, str) else content
    return lambda root: (root / relative).write_bytes(encoded)


def replaced(relative: str, old: str, new: str, count: int = 1) -> Callable[[Path], Any]:
    def mutate(root: Path) -> None:
        before = (root / relative).read_bytes()
        after = before.replace(old.encode(), new.encode(), count)
        assert after != before
        (root / relative).write_bytes(after)

    return mutate


def special(relative: str, kind: str) -> Callable[[Path], Any]:
    """Put a folder, a pipe or a link to nowhere or to itself in the place of a file."""

    def mutate(root: Path) -> None:
        path = root / relative
        path.unlink()
        make = {
            "folder": path.mkdir,
            "pipe": lambda: os.mkfifo(path),
            "broken": lambda: path.symlink_to("nowhere"),
            "loop": lambda: path.symlink_to(path.name),
            "gone": lambda: None,
            "empty": path.touch,
        }
        make[kind]()

    return mutate


def file_kinds(relative: str, *, empty: str = "quick") -> Iterator[tuple[str, str, Callable[[Path], Any]]]:
    for kind in ("folder", "pipe", "broken", "loop", "gone"):
        yield f"{relative} {kind}", "quick", special(relative, kind)
    yield f"{relative} empty", empty, special(relative, "empty")
