"""Datasets that are built twice: the same seed gives the same bytes, another seed gives others."""

from collections.abc import Callable
from pathlib import Path


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def assert_seed_decides_bytes(build: Callable[..., object], root: Path, scratch: Path, *, seed: int) -> None:
    """Build `root` again in an empty folder, with its seed and with another one."""
    again = scratch / "again"
    build(again, seed=seed)
    assert contents(again) == contents(root)
    assert not list(scratch.glob(".*")), "nothing temporary is left"
    build(again, seed=seed + 1)
    assert contents(again) != contents(root)
