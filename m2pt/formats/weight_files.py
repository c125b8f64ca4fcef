"""What a weight file says about itself, its checksum, and its digest. Needs no torch.

A safetensors file of ours has one entry of metadata, a JSON text with the metadata proper and a checksum: the
CRC-32 of the header, with zeros in the checksum's own place, and of the CRC-32 of every tensor in the order
of their names. safetensors writes several entries in an order that changes from process to process; one
cannot. Other readers see an ordinary file.
"""

import hashlib
import json
import os
import re
import stat
import zlib
from collections.abc import Mapping
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


def add_checksum(path: Path, sums: Mapping[str, int]) -> None:
    """Write the checksum into a file that was written with `metadata_entry`; `sums` are its tensors' CRC-32.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("r+b") as file:
        header, _ = _header(file)
        at, end = _checksum_place(header)
        file.seek(at)
        file.write(_checksum(header, at, end, sums))


def check_checksum(path: Path) -> None:
    """Make sure that no byte of a safetensors file of ours has changed; one of others has no checksum.

    Raises:
        DamagedError: it is damaged.
        InputError: it cannot be read.
    """
    check_readable(path)
    try:
        with path.open("rb") as file:
            header, size = _header(file)
            if not any(mark in header for mark in _MARKS):
                return  # of other people, or safetensors will see what is wrong
            at, end = _checksum_place(header)
            said, computed = header[at:end], _checksum(header, at, end, _tensor_sums(file, header, size))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; fetch or make it again") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged or truncated: {error}; fetch or make it again") from error
    if said != computed:
        raise DamagedError(
            f"{path} is damaged or truncated: its checksum is {computed.decode()}, and it says "
            f"{said.decode()}; fetch or make it again"
        )


def _header(file: IO[bytes]) -> tuple[bytes, int]:
    """The header of a safetensors file with the length before it, empty if there is none; the file's size."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    return (b"", size) if length > min(size, _LARGEST_HEADER) else (start + file.read(length), size)


def _checksum_place(header: bytes) -> tuple[int, int]:
    if found := _CHECKSUM.search(header):
        return found.span(1)
    raise ValueError("its header has no checksum, or is of an earlier version of this project")


def _checksum(header: bytes, at: int, end: int, sums: Mapping[str, int]) -> bytes:
    crc = zlib.crc32(header[:at] + _BLANK.encode() + header[end:])
    for name in sorted(sums):
        crc = zlib.crc32(sums[name].to_bytes(4, "little"), crc)
    return f"{crc:08x}".encode()


def _tensor_sums(file: IO[bytes], header: bytes, size: int) -> dict[str, int]:
    """CRC-32 of every tensor of a file that stands after its header.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, RecursionError: the header is not one.
    """
    entries = {name: entry for name, entry in json.loads(header[8:]).items() if name != "__metadata__"}
    places = {name: tuple(entry["data_offsets"]) for name, entry in entries.items()}
    sums, reached = {}, 0
    for name, (begin, end) in sorted(places.items(), key=lambda item: item[1]):
        if begin != reached or end < begin:
            raise ValueError(f"{name} does not lie where the tensor before it ends")
        sums[name] = crc32(file, end - begin)
        reached = end
    if len(header) + reached != size:
        raise ValueError(f"its tensors end at {len(header) + reached} of {size} bytes")
    return sums


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
        raise InputError(f"{path}: its metadata is not what m2pt writes; make it again")
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
            raise InputError(
                f"cannot read {path}: it is not a regular file; give the path of a readable file"
            )
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give the path of a readable file") from error
