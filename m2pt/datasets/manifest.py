"""The manifest of a dataset on disk: its files and their hash, so that a result can identify its data."""

import hashlib
import os
from pathlib import Path
from typing import Any

from tqdm import tqdm

from m2pt.datasets.layouts import layout_module
from m2pt.datasets.reading import regular_file
from m2pt.errors import InputError


def build_manifest(root: Path, layout: str, *, full: bool) -> dict[str, Any]:
    """Describe the dataset at `root`.

    `listing_sha256` covers paths and sizes; `content_sha256` covers every byte and is computed only if
    `full`, since it reads the whole dataset. Neither depends on where the dataset is or when it was written:
    paths are relative to `root`, except for files elsewhere that a list names by an absolute path. Files that
    are not part of the layout are left out.

    Raises:
        InputError: there is no such layout, the classes or samples are not listed, or a file is missing, is
            not a regular file or cannot be read.
    """
    module = layout_module(layout)
    paths = {_name(path, root): path for path in module.files(root)}
    names = sorted(paths)
    listing, content, total = hashlib.sha256(), hashlib.sha256(), 0
    for name in tqdm(names, desc=f"manifest of {layout}", unit="file", disable=None):
        size = regular_file(paths[name]).stat().st_size
        total += size
        listing.update(_encoded(f"{name}\0{size}\n"))
        if full:
            content.update(_encoded(f"{name}\0{file_sha256(paths[name])}\n"))
    manifest: dict[str, Any] = {
        "layout": layout,
        "files": len(names),
        "bytes": total,
        "items": module.counts(root),
        "classes": [_encoded(name).decode(errors="backslashreplace") for name in module.classes(root)],
        "listing_sha256": listing.hexdigest(),
    }
    if full:
        manifest["content_sha256"] = content.hexdigest()
    return manifest


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes.

    Raises:
        InputError: the file is missing, is not a regular file or cannot be read.
    """
    try:
        with regular_file(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _name(path: Path, root: Path) -> str:
    """Return a path relative to `root` if it is below it, else the absolute one."""
    if not path.is_relative_to(root):  # an absolute path, whereas `root` may be relative
        path, root = (Path(os.path.normpath(given.absolute())) for given in (path, root))
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _encoded(text: str) -> bytes:
    """Return the bytes of a file name, which may not be UTF-8, as the file system stores them."""
    return text.encode("utf-8", "surrogateescape")
