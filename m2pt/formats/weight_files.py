"""What a weight file says about itself, and its digest. Needs no torch."""

import hashlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from m2pt.errors import InputError
from m2pt.formats.documents import parse_json

METADATA_KEY = "m2pt"
"""safetensors writes its metadata in an order that changes from process to process; one entry cannot."""


def load_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a `.safetensors` file without reading its weights.

    Raises:
        InputError: the file is missing, unreadable or truncated.
    """
    check_readable(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return stored_metadata(file, path)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or truncated: {error}; fetch or make it again") from error


def stored_metadata(file: Any, path: Path) -> dict[str, str]:
    """Return the metadata of the open safetensors file at `path`: ours if it is ours, else whatever it has.

    Raises:
        InputError: our entry is none that we write.
    """
    metadata: dict[str, str] = file.metadata() or {}
    if METADATA_KEY not in metadata:
        return metadata
    stored = parse_json(metadata[METADATA_KEY], f"{path}: its metadata")
    if not isinstance(stored, dict) or not all(isinstance(value, str) for value in stored.values()):
        raise InputError(f"{path}: its metadata is none of ours; make it again")
    return stored


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: the file cannot be read.
    """
    check_readable(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_readable(path: Path) -> None:
    """Make sure that a file can be read.

    Raises:
        InputError: it cannot.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give the path of a readable file") from error
