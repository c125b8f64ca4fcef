"""Images with labels in tar files, named as WebDataset does: `KEY.jpg` and `KEY.cls`, one after the other.

WebDataset reads such shards from end to end. Here an index says where each image is, so that any sample can
be read at any time: order and augmentation are those of single files.
"""

import os
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from m2pt.atomic import replacing
from m2pt.datasets.checks import raise_problems
from m2pt.datasets.corrupt import DatasetError
from m2pt.datasets.images import SUFFIXES, printable_name
from m2pt.datasets.reading import error_reason, reading, regular_file
from m2pt.errors import MOST_FAULTS, InputError, short

LABEL = "cls"
"""Suffix of the member with a sample's label, an integer as text."""

ROW = np.dtype([("shard", "<i4"), ("label", "<i4"), ("offset", "<i8"), ("size", "<i8")])
"""A sample in the index: number of its shard, label, first byte of the image, bytes of the image."""


class Sample(NamedTuple):
    """A sample of a shard: key, label, first byte and number of bytes of the image."""

    key: str
    label: int
    offset: int
    size: int


def shard_names(folder: Path) -> list[str]:
    """Return the sorted names of the shards in a folder; none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.glob("[!.]*.tar"))


# ---- one shard ---------------------------------------------------------------------------------------------


def scan(path: Path) -> tuple[list[Sample], list[str]]:
    """Return the samples of a shard in order, and a problem for everything that is not as it should be.

    Members other than images and labels, such as `KEY.json`, are ignored.
    """
    samples: list[Sample] = []
    problems: list[str] = []
    try:
        with (
            reading(regular_file(path), "a tar file"),
            path.open("rb") as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            for key, members in groupby(_files(path, tar, problems), key=lambda member: _key(member.name)):
                try:
                    samples.append(_sample(tar, key, list(members)))
                except ValueError as error:
                    problems.append(f"{path}: sample {printable_name(key)} {error}.")
                if len(problems) >= MOST_FAULTS:
                    raise InputError(f"{path} has perhaps more problems; the rest was not read.")
            file.seek(tar.offset)  # where tarfile stops, also at a damaged header
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise InputError(f"{path} is truncated or damaged at byte {tar.offset}; copy it again.")
    except InputError as error:
        problems.append(str(error))
    if not samples and not problems:
        problems.append(f"{path} has no samples.")
    return samples, problems


def _files(path: Path, tar: tarfile.TarFile, problems: list[str]) -> Iterator[tarfile.TarInfo]:
    """Yield the images and labels; add a problem for each member that is neither a file nor a folder."""
    for member in tar:
        if not member.isreg() or member.issparse():
            if not member.isdir():
                name = printable_name(member.name)
                problems.append(f"{path}: member {name} is a link, a device or sparse; pack its content.")
        elif _key(member.name) and _suffix(member.name) in (f".{LABEL}", *SUFFIXES):
            yield member


def _key(name: str) -> str:
    """Return the name up to the first dot after its folder, WebDataset's key; empty for a hidden file."""
    folder, slash, base = name.rpartition("/")
    stem = base.partition(".")[0]
    return f"{folder}{slash}{stem}" if stem else ""


def _suffix(name: str) -> str:
    """Return the rest of the name, from that dot on, in lower case."""
    base = name.rpartition("/")[2]
    return base[len(base.partition(".")[0]) :].lower()


def _sample(tar: tarfile.TarFile, key: str, members: Sequence[tarfile.TarInfo]) -> Sample:
    """Return the sample of consecutive members with one key.

    Raises:
        ValueError: there is not exactly one image and one label, or the label is no class.
    """
    labels = [member for member in members if _suffix(member.name) == f".{LABEL}"]
    images = [member for member in members if member not in labels]
    for found, what in ((images, "image file"), (labels, f"label (.{LABEL})")):
        if len(found) != 1:
            raise ValueError(f"has {len(found) or 'no'} {what}{'s' if len(found) > 1 else ''}")
    content = cast("tarfile.ExFileObject", tar.extractfile(labels[0])).read(100)
    text = content.decode("ascii", "replace").strip()
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"has the label {short(repr(text), 40)}, which must be 0, 1, 2, ...")
    return Sample(key, int(text), images[0].offset_data, images[0].size)


# ---- all shards of a split ---------------------------------------------------------------------------------


class ShardIndex:
    """Where the samples of a split's shards are: 24 bytes for each.

    Args:
        folder: folder of the shards.
        names: their names.
        rows: an array of `ROW`, a row for each sample.
    """

    def __init__(self, folder: Path, names: Sequence[str], rows: NDArray[np.void]) -> None:
        self.folder, self.names, self.rows = folder, list(names), rows

    @classmethod
    def of(cls, folder: Path, names: Sequence[str], scans: Iterable[Sequence[Sample]]) -> "ShardIndex":
        """Return the index of shards with these samples; `scans` may be an iterator of those of a shard."""
        parts = [
            np.array([(number, *sample[1:]) for sample in samples], ROW)
            for number, samples in enumerate(scans)
        ]
        return cls(folder, names, np.concatenate([np.empty(0, ROW), *parts]))

    @property
    def labels(self) -> NDArray[np.int32]:
        """Labels (n,)."""
        return cast("NDArray[np.int32]", self.rows["label"])

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> tuple[Path, bytes]:
        """Return name, as of a file in the shard, and content of an image.

        Raises:
            DatasetError: the shard cannot be read, or has been replaced since it was indexed.
        """
        row = self.rows[index]
        path, offset, size = self.folder / self.names[row["shard"]], int(row["offset"]), int(row["size"])
        try:
            with path.open("rb") as file:
                file.seek(offset - tarfile.BLOCKSIZE)
                header, content = file.read(tarfile.BLOCKSIZE), file.read(size)
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error_reason(error)}.") from None
        with suppress(tarfile.HeaderError):
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            if member.size == size == len(content):
                return path / member.name, content
        raise DatasetError(
            f"{path} is not the file that {index_path(self.folder)} was made for; delete that, and run "
            "`m2pt data check`."
        )


def index_path(folder: Path) -> Path:
    """Return the path of a split's index: beside its folder."""
    return folder.with_name(f"{folder.name}.index.npz")


def build_index(folder: Path) -> tuple[ShardIndex, list[str]]:
    """Return the index of the shards in a folder, and every problem; reads all headers, a thread per core."""
    names = shard_names(folder)
    problems: list[str] = []

    def without_problems(scans: Iterable[tuple[list[Sample], list[str]]]) -> Iterator[list[Sample]]:
        for samples, faults in scans:
            problems.extend(faults)
            yield samples

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scans = pool.map(scan, [folder / name for name in names])
        progress = tqdm(scans, total=len(names), desc=f"indexing {folder.name}", unit="shard", disable=None)
        return ShardIndex.of(folder, names, without_problems(progress)), problems


def load_index(folder: Path) -> ShardIndex:
    """Return the index of the shards in a folder; make and store it first if there is none of these shards.

    Raises:
        InputError: a shard is invalid, or the index cannot be stored.
    """
    index = stored_index(folder)
    if index is None:
        index, problems = build_index(folder)
        raise_problems(problems)
        store_index(index)
    return index


def stored_index(folder: Path) -> ShardIndex | None:
    """Return the stored index; None if there is none, or it is of shards with other names or sizes."""
    names = shard_names(folder)
    with (
        suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
        np.load(index_path(folder), allow_pickle=False) as stored,
    ):
        rows = stored["rows"]
        sizes = [(folder / name).stat().st_size for name in names]
        if stored["names"].tolist() == names and stored["bytes"].tolist() == sizes and rows.dtype == ROW:
            return ShardIndex(folder, names, rows)
    return None


def store_index(index: ShardIndex) -> None:
    """Store an index, atomically.

    Raises:
        InputError: the folder cannot be written.
    """
    path = index_path(index.folder)
    sizes = [(index.folder / name).stat().st_size for name in index.names]
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, names=np.array(index.names), bytes=np.array(sizes, np.int64), rows=index.rows)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error_reason(error)}): let the index be written there once, or link "
            "the shards into a folder of your own."
        ) from None
