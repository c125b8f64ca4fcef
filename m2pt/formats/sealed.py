"""A file that ends with its own length and CRC-32, so that damage anywhere in it is found when it is read.

CRC-32 finds every change within 32 neighbouring bits, and all but one in four billion of other changes. It is
computed while the file is written, at several times the speed of a disk; a cryptographic hash would take as
long as the writing itself, and against forgers a digest within the file is no help anyway.
"""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

SEAL = struct.Struct("<8sQI")
"""The last bytes: `_MAGIC`, and the length in bytes and the CRC-32 of all before. A ZIP file may end so."""

CHUNK = 1 << 22
"""Bytes that are read at a time."""

_MAGIC = b"m2ptseal"


_SMALL = 1 << 16
"""Bytes that are summed faster than another thread could be asked to."""


class SealedWriter(io.BufferedWriter):
    """A new file for writing front to back; `seal` ends it. What is large is summed while it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(str(path), "w"))
        self._length = self._crc = 0
        self._beside = ThreadPoolExecutor(1)

    def write(self, data: Any) -> int:
        """Write bytes and count them in."""
        length = memoryview(data).nbytes
        self._length += length
        if length < _SMALL:
            self._crc = zlib.crc32(data, self._crc)
            return super().write(data)
        summed = self._beside.submit(zlib.crc32, data, self._crc)
        try:
            return super().write(data)
        finally:
            self._crc = summed.result()  # `data` is the caller's again after this

    def close(self) -> None:
        """Close the file."""
        self._beside.shutdown()
        super().close()

    def seal(self) -> None:
        """Write the end."""
        super().write(SEAL.pack(_MAGIC, self._length, self._crc))


def check_seal(file: IO[bytes]) -> None:
    """Read a file from its start and compare it with the seal at its end.

    Raises:
        ValueError: it has none, or another content or length than it says.
        OSError: it cannot be read.
    """
    length = file.seek(0, io.SEEK_END) - SEAL.size
    magic, sealed_length, sealed_crc = b"", 0, 0
    if length >= 0:
        file.seek(length)
        magic, sealed_length, sealed_crc = SEAL.unpack(file.read(SEAL.size))
    if magic != _MAGIC or sealed_length != length:
        raise ValueError("it does not end as it was written")
    file.seek(0)
    if crc32(file, length) != sealed_crc:
        raise ValueError("its checksum is not that of its content")


def crc32(file: IO[bytes], length: int, start: int = 0) -> int:
    """CRC-32 of the next `length` bytes of a file, or of fewer if it ends, going on from `start`."""
    while length > 0 and (chunk := file.read(min(CHUNK, length))):
        start = zlib.crc32(chunk, start)
        length -= len(chunk)
    return start
