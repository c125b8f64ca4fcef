"""Metadata, checksum and digest of weight files, without torch.

A safetensors file written by this project has a single metadata entry: JSON with the metadata proper and a
checksum. The checksum is the CRC-32 of the header, with zeros in place of the checksum, and of the CRC-32 of
every tensor in the order of their names. A single entry, because safetensors writes several in an order that
changes between processes. Other readers see an ordinary safetensors file.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open

from m2pt.errors import DamagedError, InputError
from m2pt.formats.checksummed import crc32
from m2pt.formats.documents import open_binary, parse_json

METADATA_KEY = "m2pt"

_BLANK = "0" * 8
_CHECKSUM = re.compile(rb'"m2pt":"\{\\"crc32\\": \\"([0-9a-f]{8})\\", \\"metadata\\": ')
"""Start of our metadata entry, as it is encoded in the header."""

_MARKS = (b'"m2pt":"', rb"\"crc32\"", rb"\"metadata\"")
"""A foreign file contains none of these, a damaged file of ours some."""

_LARGEST_HEADER = 100_000_000
"""Bytes; the limit of safetensors."""


def metadata_entry(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata entry to write a file with, before `add_checksum`."""
    return {METADATA_KEY: json.dumps({"crc32": _BLANK, "metadata": dict(metadata)}, sort_keys=True)}


def add_checksum(path: Path, sums: Mapping[str, int]) -> None:
    """Write the checksum into a file with a `metadata_entry`; `sums` are the CRC-32 of its tensors.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("r+b") as file:
        header, _ = _header(file)
        at, end = _checksum_place(header)
        file.seek(at)
        file.write(_checksum(header, at, end, sums))


def check_checksum(path: Path) -> None:
    """Verify the checksum of a safetensors file; a foreign file has none and passes.

    Raises:
        DamagedError: the file is damaged.
        InputError: the file cannot be read.
    """
    with open_binary(path) as file:
        try:
            header, size = _header(file)
            if not any(mark in header for mark in _MARKS):
                return  # a foreign file, or one that safetensors will reject
            at, end = _checksum_place(header)
            stored, computed = header[at:end], _checksum(header, at, end, _tensor_sums(file, header, size))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError(f"{path} is damaged or truncated: {error}; fetch or recreate it") from error
    if stored != computed:
        raise DamagedError(
            f"{path} is damaged or truncated: its checksum is {computed.decode()}, but "
            f"{stored.decode()} is stored in it; fetch or recreate it"
        )


def _header(file: IO[bytes]) -> tuple[bytes, int]:
    """Return the header of a safetensors file after its length field (empty if invalid) and the file size."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    return (b"", size) if length > min(size, _LARGEST_HEADER) else (start + file.read(length), size)


def _checksum_place(header: bytes) -> tuple[int, int]:
    if found := _CHECKSUM.search(header):
        return found.span(1)
    raise ValueError("its header has no checksum, or was written by an earlier version of m2pt")


def _checksum(header: bytes, at: int, end: int, sums: Mapping[str, int]) -> bytes:
    crc = zlib.crc32(header[:at] + _BLANK.encode() + header[end:])
    for name in sorted(sums):
        crc = zlib.crc32(sums[name].to_bytes(4, "little"), crc)
    return f"{crc:08x}".encode()


def _tensor_sums(file: IO[bytes], header: bytes, size: int) -> dict[str, int]:
    """Return the CRC-32 of every tensor of a file that is positioned after its header.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, RecursionError: the header is invalid.
    """
    entries = {name: entry for name, entry in json.loads(header[8:]).items() if name != "__metadata__"}
    places = {name: tuple(entry["data_offsets"]) for name, entry in entries.items()}
    sums, reached = {}, 0
    for name, (begin, end) in sorted(places.items(), key=lambda item: item[1]):
        if begin != reached or end < begin:
            raise ValueError(f"{name} does not start where the previous tensor ends")
        sums[name] = crc32(file, end - begin)
        reached = end
    if len(header) + reached != size:
        raise ValueError(f"its tensors end at byte {len(header) + reached} of {size}")
    return sums


def load_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a `.safetensors` file after verifying its checksum, without loading the weights.

    Raises:
        DamagedError: the file is damaged or truncated.
        InputError: it is missing or unreadable.
    """
    check_checksum(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return stored_metadata(file, path)
    except SafetensorError as error:
        raise DamagedError(f"{path} is damaged or truncated: {error}; fetch or recreate it") from error


def tensor_names(path: Path) -> list[str]:
    """Return the names of the tensors in a sound `.safetensors` file, without loading them."""
    with safe_open(path, framework="numpy") as file:
        return list(file.keys())


def stored_metadata(file: Any, path: Path) -> dict[str, str]:
    """Return the metadata of the open safetensors file at `path`: from our entry, or all of a foreign file.

    Raises:
        InputError: our entry has another form than m2pt writes.
    """
    metadata: dict[str, str] = file.metadata() or {}
    if METADATA_KEY not in metadata:
        return metadata
    entry = parse_json(metadata[METADATA_KEY], f"{path}: its metadata")
    stored = entry.get("metadata") if isinstance(entry, dict) else None
    if not isinstance(stored, dict) or not all(isinstance(value, str) for value in stored.values()):
        raise InputError(f"{path}: its metadata does not have the form that m2pt writes; recreate it")
    return stored


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal.

    Raises:
        InputError: the file cannot be read.
    """
    with open_binary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
