"""The development kit of ILSVRC2012: its classes, and the classes of the validation images.

<kit>/data/meta.mat                                    a record for every synset, also for those above the
                                                       1000 classes, which have children
<kit>/data/ILSVRC2012_validation_ground_truth.txt      the `ILSVRC2012_ID` of each validation image
"""

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from m2pt.datasets.preparation.unpacking import opened_tar, reading_archive, tar_files
from m2pt.errors import InputError

META = "meta.mat"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"

LARGEST = 1 << 26
"""Most bytes of one of the two files; the official ones have less than 1 MB."""


@dataclass(frozen=True)
class Devkit:
    """What the kit says.

    Attributes:
        training_images: number of training images by wnid.
        validation_wnids: wnid of the validation images, in the order of their numbers.
    """

    training_images: dict[str, int]
    validation_wnids: list[str]


def read_devkit(path: Path) -> Devkit:
    """Read `ILSVRC2012_devkit_t12.tar.gz`.

    Raises:
        InputError: the archive is damaged, lacks one of the two files, or one of them is malformed.
    """
    from scipy.io import loadmat  # imported here: it takes half a second

    files = _read_files(path, (META, GROUND_TRUTH))
    with reading_archive(path):
        synsets = np.atleast_1d(loadmat(io.BytesIO(files[META]), squeeze_me=True)["synsets"])
        leaves = synsets[synsets["num_children"] == 0]
        wnids = {
            int(number): str(wnid)
            for number, wnid in zip(leaves["ILSVRC2012_ID"], leaves["WNID"], strict=True)
        }
        images = {
            str(wnid): int(number)
            for wnid, number in zip(leaves["WNID"], leaves["num_train_images"], strict=True)
        }
        numbers = [int(line) for line in files[GROUND_TRUTH].split()]
    if unknown := set(numbers) - set(wnids):
        raise InputError(
            f"{path} is damaged: {GROUND_TRUTH} has the class {min(unknown)}, which {META} does not have. "
            "Download it again."
        )
    return Devkit(images, [wnids[number] for number in numbers])


def _read_files(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the content of files of an archive by name."""
    found = {}
    with opened_tar(path) as archive:
        for member in tar_files(archive, path):
            name = PurePosixPath(member.name).name
            if name in names and member.size <= LARGEST:
                with reading_archive(path):
                    stream = archive.extractfile(member)
                    found[name] = stream.read() if stream else b""
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{path} has no {missing[0]}: it is not the development kit for tasks 1 and 2.")
    return found
