"""Change a box of an mp4 file whose index comes last, so that no offset into the data moves."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDERS = (b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl")


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the content of every box on one level."""
    start = 0
    while start < len(data):
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        yield kind, data[start + 8 : start + size]
        start += size


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def changed(data: bytes, kind: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return the boxes with `change` applied to the content of those of one kind, on any level."""
    result = b""
    for found, content in boxes(data):
        if found in FOLDERS:
            content = changed(content, kind, change)
        result += box(found, change(content) if found == kind else content)
    return result


def change_box(path: Path, kind: bytes, change: Callable[[bytes], bytes]) -> None:
    before = path.read_bytes()
    path.write_bytes(changed(before, kind, change))
    assert path.read_bytes() != before


def set_edits(path: Path, edits: list[tuple[int, int | None]]) -> None:
    """Write an edit list: (frames to show, first frame to show, None for a pause), 25 frames in a second."""

    def change(content: bytes) -> bytes:
        (delay,) = struct.unpack(
            ">i", content[12:16]
        )  # of the first frame, where later ones are stored first
        entries = [
            (40 * count, -1 if first is None else delay + 512 * first, 1 << 16) for count, first in edits
        ]
        return content[:4] + struct.pack(">I", len(edits)) + b"".join(struct.pack(">3i", *e) for e in entries)

    change_box(path, b"elst", change)


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a display matrix."""
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    change_box(path, b"tkhd", lambda content: content[:40] + matrix + content[76:])
