"""ImageNet in shards (`m2pt.datasets.shards`): `train/*.tar` and `val/*.tar`.

`classes.txt` beside them, which may be missing, has the wnids in label order, one in each line.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from m2pt.atomic import replacing, write_text
from m2pt.datasets.checks import check_files, error_of, quick_sample, raise_problems
from m2pt.datasets.corrupt import DatasetError
from m2pt.datasets.images import open_image
from m2pt.datasets.reading import read_lines
from m2pt.datasets.shards import (
    LABEL,
    Sample,
    ShardIndex,
    build_index,
    load_index,
    scan,
    shard_names,
    store_index,
    stored_index,
)
from m2pt.errors import InputError, listed
from m2pt.formats.documents import read_bytes

CLASSES = "classes.txt"

_ARCHIVE_OF_CLASS = re.compile(r"n\d{8}\.tar")

LARGEST_IMAGE = 1 << 30
"""Most bytes of an image file."""


class ShardImages:
    """Images and labels of a split, in the order of its shards.

    Raises:
        InputError: a shard is invalid, or a label is not below `num_classes`.
    """

    def __init__(self, root: Path, split: str, num_classes: int) -> None:
        self._index = load_index(root / split)
        raise_problems(_label_problems(self._index, num_classes))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> tuple[Path, bytes, int]:
        """Return name and content of the image's file, and the label."""
        return *self._index.image(index), int(self._index.labels[index])


def read_image(index: ShardIndex, number: int) -> Image.Image:
    """Return a decoded image.

    Raises:
        InputError: it cannot be read.
    """
    path, content = index.image(number)
    return open_image(path, content)


def classes(root: Path) -> list[str]:
    """Return the names of the classes in label order; the labels as text if there are no names."""
    if (root / CLASSES).exists():
        return read_lines(root / CLASSES)
    highest = int(load_index(root / "train").labels.max())
    return [str(label) for label in range(highest + 1)]


def files(root: Path, splits: Sequence[str]) -> Iterator[Path]:
    """Yield the names of the classes, if there are any, and every shard."""
    if (root / CLASSES).exists():
        yield root / CLASSES
    for split in splits:
        yield from (root / split / name for name in shard_names(root / split))


def check(root: Path, splits: Sequence[str], *, num_classes: int, full: bool) -> list[str]:
    """Return every problem: shards, labels, empty classes and broken images.

    The quick check reads the headers of shards that are not indexed yet, and decodes a sample of each split
    (`checks.QUICK_SAMPLE`); the full one reads all headers and decodes every image.
    """
    problems: list[str] = []
    if (root / CLASSES).exists() and (found := len(classes(root))) != num_classes:
        problems.append(f"{root / CLASSES} has {found} lines, not num_classes = {num_classes}.")
    for split in splits:
        folder = root / split
        if not (names := shard_names(folder)):
            problems.append(f"{folder} has no shards (*.tar).")
            continue
        if _ARCHIVE_OF_CLASS.fullmatch(names[0]):
            problems.append(
                f"{folder} has the official archives of the classes, such as {names[0]}, not shards: make "
                "the dataset of the downloads with `m2pt data prepare imagenet`."
            )
            continue
        index = stored = stored_index(folder)
        if index is None or full:
            index, faults = build_index(folder)
            problems += faults
            if faults:
                continue
            if stored is None or not np.array_equal(index.rows, stored.rows):
                store_index(index)
        problems += _label_problems(index, num_classes)
        present = set(index.labels.tolist())
        problems += [f"{folder} has no image of class {k}." for k in range(num_classes) if k not in present]
        numbers = quick_sample(range(len(index)), full=full)
        read = partial(error_of, read_image, index)
        try:
            problems += check_files(numbers, read, what=f"imagenet {split}", training=split == "train")
        except DatasetError as error:
            problems.append(str(error))
    return problems


def _label_problems(index: ShardIndex, num_classes: int) -> list[str]:
    wrong = (index.labels >= num_classes).nonzero()[0]
    if not wrong.size:
        return []
    path, _ = index.image(int(wrong[0]))
    return [
        f"{path} has the label {index.labels[wrong[0]]}, but num_classes = {num_classes} allows 0 to "
        f"{num_classes - 1}; {len(wrong)} images in {index.folder} have one beyond."
    ]


# ---- packing -----------------------------------------------------------------------------------------------


def pack(source: Path, folder: Path, items: Sequence[tuple[int, str]], most: int) -> None:
    """Write the images of a split to shards of at most `most` samples, and their index.

    Shards that are complete already are kept, so that a packing that was stopped continues. The same images
    give the same bytes.

    Args:
        source: folder of the images.
        folder: folder of the shards, named after the split.
        items: label and name, `wnid/file` below `source`, of each image, sorted by wnid.
        most: most samples of a shard.

    Raises:
        InputError: two images get the same key, or there are other shards in the folder.
        OSError: the disk is full or not writable.
    """
    split = folder.name
    starts = range(0, len(items), most)
    names = [f"{split}-{number:06}.tar" for number in range(len(starts))]
    if others := sorted(set(shard_names(folder)) - set(names)):
        raise InputError(
            f"{folder} has other shards, {listed(others, 3)}: remove them or choose another folder."
        )
    for _, of_class in groupby(items, key=lambda item: PurePosixPath(item[1]).parent):
        keys: dict[str, str] = {}
        for _, name in of_class:
            if (first := keys.setdefault(_key(name), name)) != name:
                raise InputError(
                    f"{source / first} and {source / name} would both have the key {_key(name)}: rename one."
                )
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, start: int) -> list[Sample]:
        part = items[start : start + most]
        if not _is_packed(folder / name, source, part):
            _write(folder / name, source, part)
        samples, problems = scan(folder / name)
        if problems:
            raise InputError(problems[0])
        return samples

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = pool.map(write, names, starts)
        progress = tqdm(written, total=len(names), desc=f"packing {split}", unit="shard", disable=None)
        store_index(ShardIndex.of(folder, names, progress))


def write_classes(target: Path, names: Sequence[str]) -> None:
    """Write the names of the classes."""
    write_text(target / CLASSES, "".join(f"{name}\n" for name in names))


def _key(name: str) -> str:
    """Return the key of an image file; dots would end it early."""
    path = PurePosixPath(name)
    return str(path.with_name(path.stem.replace(".", "_")))


def _is_packed(path: Path, source: Path, part: Sequence[tuple[int, str]]) -> bool:
    """Return whether a shard with the samples of `part` is there, and newer than their files."""
    if not path.exists():
        return False
    samples, problems = scan(path)
    if problems or len(samples) != len(part):
        return False
    packed_at = path.stat().st_mtime_ns
    for sample, (label, name) in zip(samples, part, strict=True):
        file = (source / name).stat()
        if (sample.key, sample.label, sample.size) != (_key(name), label, file.st_size):
            return False
        if file.st_ctime_ns > packed_at:  # a restored file may have its old size and modification time
            return False
    return True


def _write(path: Path, source: Path, part: Sequence[tuple[int, str]]) -> None:
    with replacing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
        for label, name in part:
            suffix = PurePosixPath(name).suffix.lower().replace(".jpeg", ".jpg")
            content = read_bytes(source / name, limit=LARGEST_IMAGE)
            for member, data in (
                (f"{_key(name)}{suffix}", content),
                (f"{_key(name)}.{LABEL}", b"%d" % label),
            ):
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
