"""What a weight file says about itself, its checksum, and its digest. Needs no torch.

A safetensors file of ours has one entry of metadata, a JSON text with the metadata proper and the CRC-32 of
the whole file, computed with zeros in its own place. safetensors writes several entries in an order that
changes from process to process; one cannot. Other readers see an ordinary file.
"""

import hashlib
import json
import os
import re
import stat
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open

from m2pt.errors import DamagedError, InputError
from m2pt.formats.documents import parse_json
from m2pt.formats.sealed import crc32

METADATA_KEY = "m2pt"

_BLANK = "0" * 8
_CHECKSUM = re.compile(rb'"m2pt":"\{\\"crc32\\": \\"([0-9a-f]{8})\\", \\"metadata\\": ')
"""The start of our entry as it lies in the header."""

_MARKS = (b'"m2pt":"', rb"\"crc32\"", rb"\"metadata\"")
"""Of these a file of others has none, and a damaged one of ours has some."""

_LARGEST_HEADER = 100_000_000
"""Bytes; safetensors reads no larger one."""


def metadata_entry(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entry that a file of ours is written with, before `add_checksum`."""
    return {METADATA_KEY: json.dumps({"crc32": _BLANK, "metadata": dict(metadata)}, sort_keys=True)}


def add_checksum(path: Path) -> None:
    """Write the checksum into a file that was written with `metadata_entry`, and flush it to the disk.

    It is computed while the disk writes, which takes longer.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("r+b") as file, ThreadPoolExecutor(1) as disk:
        flushed = disk.submit(os.fsync, file.fileno())
        _, at, computed = _checksums(file) or (b"", 0, b"")
        flushed.result()
        file.seek(at)
        file.write(computed)


def check_checksum(path: Path) -> None:
    """Make sure that no byte of a safetensors file of ours has changed; one of others has no checksum.

    Raises:
        DamagedError: it is damaged.
        InputError: it cannot be read.
    """
    check_readable(path)
    try:
        with path.open("rb") as file:
            found = _checksums(file)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; fetch or make it again") from error
    except ValueError as error:
        raise DamagedError(f"{path} is damaged or truncated: {error}; fetch or make it again") from error
    if found and found[0] != found[2]:
        raise DamagedError(
            f"{path} is damaged or truncated: its checksum is {found[2].decode()}, and it says "
            f"{found[0].decode()}; fetch or make it again"
        )


def _checksums(file: IO[bytes]) -> tuple[bytes, int, bytes] | None:
    """The checksum that a file of ours says, where it says it, and the true one; None if it is not ours.

    Raises:
        ValueError: it is ours, and its checksum cannot be found.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if length > min(size, _LARGEST_HEADER):
        return None  # safetensors will say so
    header = file.read(length)
    found = _CHECKSUM.search(header)
    if found is None:
        if any(mark in header for mark in _MARKS):
            raise ValueError("its header has no checksum, or is of an earlier version of this project")
        return None
    at, end = found.span(1)
    blank = start + header[:at] + _BLANK.encode() + header[end:]
    crc = crc32(file, size - len(blank), zlib.crc32(blank))
    return found[1], len(start) + at, f"{crc:08x}".encode()


def load_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a `.safetensors` file without loading its weights, which are checked however.

    Raises:
        DamagedError: the file is damaged or truncated.
        InputError: it is missing or unreadable.
    """
    check_checksum(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return stored_metadata(file, path)
    except SafetensorError as error:
        raise DamagedError(f"{path} is damaged or truncated: {error}; fetch or make it again") from error


def stored_metadata(file: Any, path: Path) -> dict[str, str]:
    """Return the metadata of the open safetensors file at `path`: ours if it is ours, else whatever it has.

    Raises:
        InputError: our entry is none that we write.
    """
    metadata: dict[str, str] = file.metadata() or {}
    if METADATA_KEY not in metadata:
        return metadata
    entry = parse_json(metadata[METADATA_KEY], f"{path}: its metadata")
    stored = entry.get("metadata") if isinstance(entry, dict) else None
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
        InputError: it cannot, or it is a folder, a pipe or a device.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"cannot read {path}: it is no regular file; give the path of a readable file")
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give the path of a readable file") from error
