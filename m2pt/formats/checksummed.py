"""Files that end with their own length and CRC-32, so that damage is detected when they are read.

CRC-32 detects every change within 32 adjacent bits, and all but one in four billion of other changes. It is
computed while the file is written, at several times the speed of a disk. A cryptographic hash would take as
long as writing, and a digest inside the file would not stop a forger anyway.
"""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

TRAILER = struct.Struct("<8sQI")
"""The last bytes: `_MAGIC`, length in bytes and CRC-32 of all before. ZIP files may have such a trailer."""

CHUNK = 1 << 22
"""Bytes per read."""

_MAGIC = b"m2ptseal"

_SMALL = 1 << 16
"""Below this number of bytes the checksum takes less time than handing it to another thread."""


class ChecksummedWriter(io.BufferedWriter):
    """A new file, written front to back and ended by `write_trailer`.

    The checksum of large writes is computed in parallel with writing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(str(path), "w"))
        self._length = self._crc = 0
        self._executor = ThreadPoolExecutor(1)

    def write(self, data: Any) -> int:
        """Write bytes and update length and checksum."""
        length = memoryview(data).nbytes
        self._length += length
        if length < _SMALL:
            self._crc = zlib.crc32(data, self._crc)
            return super().write(data)
        crc = self._executor.submit(zlib.crc32, data, self._crc)
        try:
            return super().write(data)
        finally:
            self._crc = crc.result()  # wait: the caller may change `data` after this

    def close(self) -> None:
        """Close the file."""
        self._executor.shutdown()
        super().close()

    def write_trailer(self) -> None:
        """Write length and checksum."""
        super().write(TRAILER.pack(_MAGIC, self._length, self._crc))


def check_trailer(file: IO[bytes]) -> None:
    """Compare a whole file with the length and checksum in its trailer.

    Raises:
        ValueError: there is no trailer, or length or checksum differ.
        OSError: the file cannot be read.
    """
    length = file.seek(0, io.SEEK_END) - TRAILER.size
    magic, stored_length, stored_crc = b"", 0, 0
    if length >= 0:
        file.seek(length)
        magic, stored_length, stored_crc = TRAILER.unpack(file.read(TRAILER.size))
    if magic != _MAGIC or stored_length != length:
        raise ValueError("its end is missing or damaged")
    file.seek(0)
    if crc32(file, length) != stored_crc:
        raise ValueError("its content does not match its checksum")


def crc32(file: IO[bytes], length: int, start: int = 0) -> int:
    """Return the CRC-32 of the next `length` bytes of a file (fewer if it ends), continued from `start`."""
    while length > 0 and (chunk := file.read(min(CHUNK, length))):
        start = zlib.crc32(chunk, start)
        length -= len(chunk)
    return start
