"""The length that sound files declare, which libsndfile does not compare with their content.

libsndfile reads a truncated WAV or AIFF as a shorter one, trusts the placeholder size of a WAV that was
written to a pipe, and estimates the length of an MP3. The functions here work on the bytes alone.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m2pt.datasets.mpeg import after_id3, declared_mp3
from m2pt.errors import InputError

STREAMED = 0x7F00_0000
"""Sizes from here on are placeholders for an unknown one, like 0: to a pipe sox writes 0x7FFFF000 or
0x7F000000, arecord 0x80000000, FFmpeg 0xFFFFFFFF."""

_FORMS = {b"RIFF", b"RF64", b"BW64", b"RIFX", b"FORM", b".snd", b"OggS", b"fLaC"}

_RIFF_NAMES = {b"fmt ", b"fact", b"data", b"LIST", b"JUNK", b"bext", b"PEAK", b"cue ", b"smpl", b"inst"}


def complete(content: bytes, path: Path) -> bytes:
    """Return a sound file's bytes with a header that libsndfile reads correctly; most files are unchanged.

    Streamed WAV files, those without a pad byte, RF64 and BW64 get a plain WAV header. An ID3 tag
    before any of these containers is removed: libsndfile would drop as many bytes at the end.

    Raises:
        InputError: the file is truncated, or has several streams.
    """
    start = after_id3(content)
    if start and content[start : start + 4] in _FORMS:
        content = content[start:]
    match content[:4]:
        case b"RIFF" | b"RF64" | b"BW64":
            return _complete_wav(content, path)
        case b"RIFX":
            _require_chunk(content, _chunks(content, ">I"), b"data", path)
        case b"FORM":
            _require_chunk(content, _chunks(content, ">I"), b"SSND", path)
        case b".snd":
            start, size = struct.unpack(">II", content[4:12].ljust(8, b"\0"))
            if 0 < size < STREAMED:
                _require(content, start + size, path)
            else:
                return content[:8] + b"\xff" * 4 + content[12:]
        case b"OggS":
            _require_ogg(content, path)
    return content


def declared_samples(content: bytes, kind: str, num_samples: int) -> int:
    """Return how many samples per channel a file declares, or 0 if it declares none.

    Args:
        content: the file, as returned by `complete`.
        kind: libsndfile's name of its format.
        num_samples: samples per channel by libsndfile.
    """
    if kind == "MP3":
        return declared_mp3(content, num_samples)
    if kind == "AIFF":
        common = next((chunk for chunk in _chunks(content, ">I") if chunk.name == b"COMM"), None)
        frames = 0 if common is None else int.from_bytes(content[common.start + 2 : common.start + 6])
        return frames if frames < STREAMED // 64 else 0  # sox: 0x7F000000 bytes of samples
    return num_samples


# ---- RIFF and AIFF -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chunk:
    """A chunk's name, the start of its content, its declared size, and whether its pad byte is missing."""

    name: bytes
    start: int
    size: int
    unpadded: bool = False


def _chunks(content: bytes, size_format: str) -> Iterator[_Chunk]:
    """Yield the chunks of a RIFF or AIFF file; the last one may extend beyond the end of the file."""
    position = 12
    while position + 8 <= len(content):
        name, start = content[position : position + 4], position + 8
        (size,) = struct.unpack_from(size_format, content, position + 4)
        end = start + size
        unpadded = bool(size % 2) and content[end : end + 4] in _RIFF_NAMES
        yield _Chunk(name, start, size, unpadded)
        position = end + size % 2 - unpadded


def _complete_wav(content: bytes, path: Path) -> bytes:
    before: list[_Chunk] = []
    for chunk in _chunks(content, "<I"):
        if chunk.name == b"data":
            break
        before.append(chunk)
    else:
        return content  # not a WAV file: libsndfile says so
    size, available = chunk.size, len(content) - chunk.start
    plain = content[:4] == b"RIFF"
    if not plain:
        long = next((other for other in before if other.name == b"ds64"), None)
        size = 0 if long is None else struct.unpack_from("<Q", content, long.start + 8)[0]
    streamed = (size >= STREAMED and size > available) or (not size and not _is_chunks(content, chunk.start))
    if not streamed:
        _require(content, chunk.start + size, path)
        if plain and not any(other.unpadded for other in before):
            return content
    body = content[chunk.start : chunk.start + (available if streamed else size)]
    head = [(other.name, content[other.start : other.start + other.size]) for other in before]
    chunks = [*((name, value) for name, value in head if name != b"ds64"), (b"data", body)]
    written = b"".join(
        name + struct.pack("<I", len(value)) + value + b"\0" * (len(value) % 2) for name, value in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(written)) + b"WAVE" + written


def _is_chunks(content: bytes, start: int) -> bool:
    """Return True if the rest of the file after an empty data chunk is nothing, or further chunks."""
    while start < len(content):
        name, size = content[start : start + 4], int.from_bytes(content[start + 4 : start + 8], "little")
        if not (name.isascii() and name.decode().isprintable()) or start + 8 + size > len(content):
            return False
        start += 8 + size + size % 2
    return True


def _require_chunk(content: bytes, chunks: Iterator[_Chunk], name: bytes, path: Path) -> None:
    for chunk in chunks:
        if chunk.name == name and chunk.size < STREAMED:
            _require(content, chunk.start + chunk.size, path)


def _require(content: bytes, end: int, path: Path) -> None:
    if len(content) < end:
        raise InputError(
            f"{path} is truncated: its header declares sound up to byte {end}, but it has {len(content)}."
        )


# ---- Ogg ---------------------------------------------------------------------------------------------------


def _require_ogg(content: bytes, path: Path) -> None:
    """Check that there is one stream, from a page of type 2 to one of type 4 (RFC 3533, section 6)."""
    if content.count(b"OggS\0\x02") > 1:
        raise InputError(f"{path} has several Ogg streams, of which only one would be read: convert it.")
    page = content[content.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    whole = len(page) >= 27 + len(segments) + sum(segments) and len(segments) == page[26]
    if not whole or not page[5] & 4:
        raise InputError(f"{path} is truncated: the last page of its Ogg stream is missing.")
