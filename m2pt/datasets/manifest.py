"""A manifest says what a dataset on disk consists of, so that a result can name the data it came from."""

import hashlib
from pathlib import Path
from typing import Any

from tqdm import tqdm

from m2pt.datasets.layouts import layout_module


def build_manifest(root: Path, layout: str, *, full: bool) -> dict[str, Any]:
    """Describe the dataset at `root`.

    `listing_sha256` covers relative paths and sizes; `content_sha256` also every byte, and is only there if
    `full`, because it reads the whole dataset. Neither depends on where the dataset lies or when it was
    written, and files that the layout does not know are left out.

    Raises:
        InputError: there is no such layout, or `root` lacks a file that names its classes or items.
    """
    module = layout_module(layout)
    paths = {path.relative_to(root).as_posix(): path for path in module.files(root)}
    names = sorted(paths)
    listing, content, total = hashlib.sha256(), hashlib.sha256(), 0
    for name in tqdm(names, desc=f"manifest of {layout}", unit="file", disable=None):
        size = paths[name].stat().st_size
        total += size
        listing.update(f"{name}\0{size}\n".encode())
        if full:
            content.update(f"{name}\0{file_sha256(paths[name])}\n".encode())
    manifest: dict[str, Any] = {
        "layout": layout,
        "files": len(names),
        "bytes": total,
        "items": module.counts(root),
        "classes": module.classes(root),
        "listing_sha256": listing.hexdigest(),
    }
    if full:
        manifest["content_sha256"] = content.hexdigest()
    return manifest


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
