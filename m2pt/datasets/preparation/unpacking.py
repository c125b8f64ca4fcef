"""Unpacking of downloaded archives: files appear whole, and those that are there already are skipped.

So an unpacking that was killed goes on where it was, and nothing is ever replaced. Only regular files are
unpacked, below the folder given.
"""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from tqdm import tqdm

from m2pt.atomic import clear_abandoned, part_of
from m2pt.datasets.reading import reading, regular_file
from m2pt.errors import InputError

CHUNK = 1 << 20
"""Bytes read at once."""


class Unpacking:
    """Writes files of one archive.

    Args:
        archive: the archive, for messages.

    Attributes:
        written: number of files written now, without those that were there already.
    """

    def __init__(self, archive: Path) -> None:
        self.written = 0
        self._archive = archive
        self._parts: dict[Path, Path] = {}

    def write(self, target: Path, size: int, opened: Callable[[], IO[bytes] | None]) -> None:
        """Write a file of the archive to `target`, unless a file of its size is there.

        An empty file is replaced, since a crash of the machine may have left it.

        Args:
            target: the path to write.
            size: bytes of the file.
            opened: opens the file in the archive.

        Raises:
            InputError: the archive is damaged, or something else is at `target`.
            OSError: the disk is full or not writable.
        """
        if self._is_there(target, size):
            return
        part = self._part(target.parent)
        try:
            # without fsync, which takes longer than all the rest: what a crash loses shows in the size
            with part.open("xb") as file:
                for chunk in self._chunks(opened):
                    file.write(chunk)
                if file.tell() != size:
                    raise InputError(
                        f"{self._archive} is damaged: {target.name} has {file.tell():,} of {size:,} bytes. "
                        "Download it again."
                    )
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        self.written += 1

    def _part(self, folder: Path) -> Path:
        """Return the temporary name in a folder, in which one file after another is written."""
        if folder not in self._parts:
            folder.mkdir(parents=True, exist_ok=True)
            clear_abandoned(folder)
            self._parts[folder] = part_of(folder / self._archive.name)
        return self._parts[folder]

    def _is_there(self, target: Path, size: int) -> bool:
        try:
            found = target.stat()
        except FileNotFoundError:
            return False
        if stat.S_ISREG(found.st_mode) and found.st_size in (size, 0):
            return found.st_size == size
        raise InputError(
            f"{target} exists and is not the file of {size:,} bytes that is in {self._archive}: move it "
            "away, or give another folder."
        )

    def _chunks(self, opened: Callable[[], IO[bytes] | None]) -> Iterator[bytes]:
        with reading_archive(self._archive):
            stream = opened()
        while stream is not None:
            with reading_archive(self._archive):
                chunk = stream.read(CHUNK)
            if not chunk:
                stream.close()
                return
            yield chunk


def find_archive(folder: Path, name: str) -> Path:
    """Return the path of a downloaded archive.

    Raises:
        InputError: it is not a file in `folder`.
    """
    path = folder / name
    if not path.exists():
        raise InputError(f"{path} is missing: download it, or give the folder that holds it.")
    return regular_file(path)


@contextmanager
def reading_archive(path: Path) -> Iterator[None]:
    """Turn any exception of `tarfile`, `zipfile` and their decoders into an `InputError`.

    Raises:
        InputError: anything was raised within the block.
    """
    try:
        with reading(path, "an archive"):
            yield
    except InputError as error:
        raise InputError(f"{error} Download it again.") from error


@contextmanager
def opened_tar(path: Path, file: IO[bytes] | None = None) -> Iterator[tarfile.TarFile]:
    """Open a `.tar` or `.tar.gz` archive, or that in an open `file`, which messages call `path`.

    Raises:
        InputError: it is not a tar archive.
    """
    with ExitStack() as stack:
        with reading_archive(path):
            mode: Literal["r:gz", "r:"] = "r:gz" if path.suffix == ".gz" else "r:"
            tar = stack.enter_context(tarfile.open(None if file else path, mode, file))
        yield tar


def tar_files(tar: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the files of an open tar archive, to its end.

    `tarfile` takes a damaged header, or the end of a truncated archive, for the end of the archive; here only
    the mark of the end is taken for it.

    Raises:
        InputError: the archive is damaged, or has something else than files and folders.
    """
    while True:
        with reading_archive(archive):
            member = tar.next()
            if member is None:
                break
        if not member.isreg() and not member.isdir():
            raise InputError(f"{archive} has {member.name!r}, which is neither a file nor a folder.")
        if member.isreg():
            yield member
    with reading_archive(archive):
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it is truncated or damaged")


def unpack_zip(archive: Path, folder: Path, *, without: frozenset[str] = frozenset()) -> int:
    """Unpack a zip archive, and return the number of files that were written now.

    Args:
        archive: the archive.
        folder: folder that receives its content.
        without: if the outermost folder of a file in the archive has one of these names, it is left out.

    Raises:
        InputError: the archive is damaged, has a link or a path that leads out of the folder, or another file
            is where one has to be written.
        OSError: the disk is full or not writable.
    """
    unpacking = Unpacking(archive)
    with reading_archive(archive):
        file = zipfile.ZipFile(archive)
    with file:
        members = [member for member in file.infolist() if not member.is_dir()]
        # all of them, before the first is written
        targets = [folder / _inner(member, archive, without) for member in members]
        total = sum(member.file_size for member in members)
        with tqdm(total=total, desc=archive.name, unit="B", unit_scale=True, disable=None) as progress:
            for member, target in zip(members, targets, strict=True):
                unpacking.write(target, member.file_size, partial(file.open, member))
                progress.update(member.file_size)
    return unpacking.written


def _inner(member: zipfile.ZipInfo, archive: Path, without: frozenset[str]) -> PurePosixPath:
    """Return where a file goes, relative to the folder.

    Raises:
        InputError: it is a link, or would be outside of the folder.
    """
    path = PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(
            f"{archive} has {member.filename!r}, a link or a path that leads out of the folder: it is not "
            "the official archive."
        )
    is_wrapped = len(path.parts) > 1 and path.parts[0] in without
    return PurePosixPath(*path.parts[1:]) if is_wrapped else path
