"""The archives of ILSVRC2012 in their official forms, with a few small images."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

WNIDS = {1: "n02119789", 2: "n01440764", 3: "n02100735"}
"""By ILSVRC2012_ID: not in the order of the labels, as in the official table."""

INNER = {1001: "n00001740", 1002: "n02121620"}
"""Synsets above the classes, which have ids as well."""

TRAIN, VAL, DEVKIT = (
    "ILSVRC2012_img_train.tar",
    "ILSVRC2012_img_val.tar",
    "ILSVRC2012_devkit_t12.tar.gz",
)


@dataclass(frozen=True)
class Official:
    """A folder of archives, and the bytes that each path of the layout must get."""

    folder: Path
    train: dict[str, bytes]
    val: dict[str, bytes]


def jpeg(number: int) -> bytes:
    """Return a small JPEG that differs from those of other numbers in content and size."""
    pixels = np.random.default_rng(number).integers(0, 255, (8 + number, 9, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()


def tar(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    """Return a tar archive of these files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def devkit(ground_truth: Sequence[int], training_images: int) -> bytes:
    """Return a development kit; the table of synsets has the fields and shapes of the official one."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height")
    synsets = np.empty((len(WNIDS) + len(INNER), 1), [(name, "O") for name in (*fields, "num_train_images")])
    for row, (number, wnid) in enumerate((WNIDS | INNER).items()):
        children = [] if number in WNIDS else list(WNIDS)
        images = training_images if number in WNIDS else 0
        synsets[row, 0] = (
            number, wnid, f"word {wnid}, other", "a gloss", len(children), children, len(children), images
        )  # fmt: skip
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    data = "ILSVRC2012_devkit_t12/data"
    return tar(
        {
            "ILSVRC2012_devkit_t12/readme.txt": b"read me",
            f"{data}/ILSVRC2012_validation_ground_truth.txt": "".join(
                f"{n}\n" for n in ground_truth
            ).encode(),
            f"{data}/meta.mat": meta.getvalue(),
        },
        "w:gz",
    )


def write_archives(
    folder: Path, *, images: int = 3, ground_truth: Sequence[int] = (3, 1, 2, 3, 1)
) -> Official:
    """Write the three archives, with some training images of each class and the validation images."""
    folder.mkdir(parents=True)
    train, classes, number = {}, {}, 0
    for wnid in WNIDS.values():
        files = {f"{wnid}_{10 * each + 7}.JPEG": jpeg(number + each) for each in range(images)}
        number += images
        train.update({f"{wnid}/{name}": content for name, content in files.items()})
        classes[f"{wnid}.tar"] = tar(files)
    names = [f"ILSVRC2012_val_{each:08}.JPEG" for each in range(1, len(ground_truth) + 1)]
    files = {name: jpeg(number + each) for each, name in enumerate(names)}
    (folder / TRAIN).write_bytes(tar(classes))
    (folder / VAL).write_bytes(tar(files))
    (folder / DEVKIT).write_bytes(devkit(ground_truth, images))
    val = {f"{WNIDS[each]}/{name}": files[name] for each, name in zip(ground_truth, names, strict=True)}
    return Official(folder, train, val)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
