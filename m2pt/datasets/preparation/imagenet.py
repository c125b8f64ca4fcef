"""ImageNet-1k from the three archives of ILSVRC2012.

    ILSVRC2012_img_train.tar         an archive `<wnid>.tar` for each class, of images `<wnid>_<number>.JPEG`
    ILSVRC2012_img_val.tar           images `ILSVRC2012_val_<number>.JPEG`, numbered from 1
    ILSVRC2012_devkit_t12.tar.gz     the classes, and those of the validation images

They become `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`. torchvision's `ImageNet` unpacks them too, but
cannot go on after a stop: it would take a part of a split for the whole.
"""

import os
import re
import tarfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from m2pt.datasets.preparation.devkit import Devkit, read_devkit
from m2pt.datasets.preparation.unpacking import Unpacking, find_archive, opened_tar, tar_files
from m2pt.errors import InputError, listed

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"

_CLASS = re.compile(r"(n\d{8})\.tar")
_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def prepare(downloads: Path, root: Path) -> list[str]:
    """Unpack the archives in `downloads` to `root`.

    Images that are there with the right size are skipped. An archive may be missing if the folder of its
    split exists; the folder is then left as it is.

    Returns:
        What was found, a line for each split.

    Raises:
        InputError: an archive is missing, damaged or not the official one, or another file is where an image
            has to be written.
        OSError: the disk is full or not writable.
    """
    devkit = read_devkit(find_archive(downloads, DEVKIT))
    # both of them, before hours of unpacking
    train, val = (_find(downloads, name, root / split) for split, name in ARCHIVES.items())
    lines = []
    if train:
        lines.append(_summary("train", _unpack_train(train, root / "train", devkit), devkit.training_images))
    if val:
        lines.append(
            _summary("val", _unpack_val(val, root / "val", devkit), Counter(devkit.validation_wnids))
        )
    return lines


def _find(downloads: Path, name: str, folder: Path) -> Path | None:
    """Return the path of an archive; None if it is missing and the folder of its split is not."""
    return None if folder.is_dir() and not (downloads / name).exists() else find_archive(downloads, name)


def _unpack_train(archive: Path, folder: Path, devkit: Devkit) -> dict[str, int]:
    """Unpack all classes, one in each thread, and return the number of images of each."""
    classes = {}
    with opened_tar(archive) as tar:
        for member in tar_files(tar, archive):
            name = _CLASS.fullmatch(PurePosixPath(member.name).name)
            if name is None or name[1] not in devkit.training_images:
                raise InputError(
                    f"{archive} has {member.name!r}, which is not the archive of a class of {DEVKIT}: give "
                    "the official archives."
                )
            classes[name[1]] = member
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = pool.map(partial(_unpack_class, archive, folder), classes, classes.values())
        bar = tqdm(counts, total=len(classes), desc=archive.name, unit="class", disable=None)
        return dict(zip(classes, bar, strict=True))


def _unpack_class(archive: Path, folder: Path, wnid: str, member: tarfile.TarInfo) -> int:
    """Unpack the archive of a class, a member of `archive`, and return its number of images."""
    path = archive / member.name  # for messages
    image = re.compile(rf"{wnid}_\d+\.JPEG")
    unpacking = Unpacking(path)
    images = 0
    with opened_tar(archive) as outer, opened_tar(path, outer.extractfile(member)) as inner:
        for each in tar_files(inner, path):
            name = PurePosixPath(each.name).name
            if not image.fullmatch(name):
                raise InputError(f"{path} has {each.name!r}, which is not an image of the class.")
            unpacking.write(folder / wnid / name, each.size, partial(inner.extractfile, each))
            images += 1
    return images


def _unpack_val(archive: Path, folder: Path, devkit: Devkit) -> dict[str, int]:
    """Unpack the images, each into the folder of its class, and return their number by class."""
    found: Counter[str] = Counter()
    unpacking = Unpacking(archive)
    images = len(devkit.validation_wnids)
    bar = tqdm(total=images, desc=archive.name, unit="file", disable=None)
    with opened_tar(archive) as tar, bar as progress:
        for member in tar_files(tar, archive):
            name = _VALIDATION_IMAGE.fullmatch(PurePosixPath(member.name).name)
            if name is None or not 1 <= int(name[1]) <= images:
                raise InputError(
                    f"{archive} has {member.name!r}, which is none of the {images:,} validation images of "
                    f"{DEVKIT}: give the official archives."
                )
            wnid = devkit.validation_wnids[int(name[1]) - 1]
            unpacking.write(folder / wnid / name[0], member.size, partial(tar.extractfile, member))
            found[wnid] += 1
            progress.update()
    return found


def _summary(split: str, found: Mapping[str, int], expected: Mapping[str, int]) -> str:
    """Say how many images there are, of those that the development kit counts."""
    line = (
        f"{split}: {sum(found.values()):,} of {sum(expected.values()):,} images in {len(found):,} of "
        f"{len(expected):,} classes"
    )
    incomplete = [
        f"{wnid} ({found.get(wnid, 0):,} of {number:,})"
        for wnid, number in sorted(expected.items())
        if found.get(wnid, 0) != number
    ]
    return f"{line}; incomplete: {listed(incomplete, 10)}" if incomplete else line
