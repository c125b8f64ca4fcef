"""Files appear whole or not at all: write beside the target, flush to disk, rename."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; rename it to `path` if the block succeeds, else delete it.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` keeps its old content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Nodes that share the folder may have equal process ids, and equal seeds of their random numbers.
    temporary = path.with_name(f".{path.name}.{secrets.randbelow(10**12)}.part")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, keys in the order given, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
