"""Which files of a folder are images, how they are decoded, and what is said of those that cannot be.

Readers and checks list and decode images through the same functions, so what the check accepts is read.
"""

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from m2pt.datasets.faults import fault_of, file_faults, reading
from m2pt.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of image file names, compared in lower case: those of torchvision's `ImageFolder`."""

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "JPEG2000")
"""What a file of such a name may hold: ImageNet has a PNG named `.JPEG`. For EPS Pillow starts programs."""

DOCUMENTS = (".txt", ".md", ".rst", ".html", ".pdf", ".log", ".py", ".sh", ".m", ".ini", ".lock")
RECORDS = (".json", ".csv", ".tsv", ".xml", ".yaml", ".mat", ".npy", ".npz", ".pkl", ".db", ".lst", ".idx")
ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zip", ".7z", ".rar", ".md5", ".sha1", ".sha256")
BESIDE = {*DOCUMENTS, *RECORDS, *ARCHIVES}
"""Endings of files that are kept beside images and nobody takes for one."""

LARGEST = 178_956_970
"""Pixels of an image: where Pillow takes one for a decompression bomb. RGB needs 4 bytes for each."""

LONGEST = 100
"""Times that one side of an image may be as long as the other: views resize the shorter side."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels in [0, 1], channels red, green, blue."""

FILL = [round(255 * mean) for mean in MEAN]
"""The colour of padding: ImageNet's mean, which is zero after normalisation."""

# Pillow warns from half of what it takes for a bomb on; here a file is read, or refused in a sentence.
Image.MAX_IMAGE_PIXELS = LARGEST
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


# ---- one file ----------------------------------------------------------------------------------------------


def open_image(path: Path) -> Image.Image:
    """Decode an image file as RGB, the first frame of several.

    As torchvision and timm do, EXIF orientation, ICC profiles and transparency are ignored. Of 16-bit samples
    the high byte is kept.

    Raises:
        InputError: the file is missing, truncated, not an image, too large, or has pixels of 32 bits.
    """
    with opened(path) as image:
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
            samples = (np.asarray(image) >> 8).astype(np.uint8)  # convert() would clip at 255
            return Image.fromarray(samples).convert("RGB")
        if image.mode in ("I", "F"):
            raise InputError(f"{path} has pixels of 32 bits, whose range is unknown; save it with 8 bits.")
        return image.convert("RGB")


def image_size(path: Path, *, decode: bool) -> tuple[int, int]:
    """Return width and height of an image from its header, or after decoding all of it.

    Raises:
        InputError: the header, or with `decode` the image, cannot be read; see `open_image`.
    """
    if decode:
        return open_image(path).size
    with opened(path) as image:
        return image.size


@contextmanager
def opened(path: Path, formats: tuple[str, ...] = FORMATS) -> Iterator[ImageFile.ImageFile]:
    """Open an image file whose header is sound; the block decodes it, and holds only that.

    Raises:
        InputError: the file is missing, not an image of one of the `formats`, too large, or decoding fails.
    """
    with reading(path, "an image" if formats is FORMATS else f"a {' or '.join(formats)} image"):
        if not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path} is missing, a broken link or not a file.")
        with Image.open(path, formats=formats) as image:
            if fault := size_fault(*image.size):
                raise InputError(f"{path} {fault}.")
            yield image


def size_fault(width: int, height: int) -> str | None:
    """Say what is wrong with an image of this size, if anything: it bounds what reading takes."""
    if width * height > LARGEST:
        return f"is {width}x{height} pixels, more than {LARGEST}; resize or remove it"
    if max(width, height) > LONGEST * min(width, height):
        return f"is {width}x{height} pixels, one side over {LONGEST} times the other; crop or remove it"
    return None


# ---- a folder ----------------------------------------------------------------------------------------------


def is_image(name: str) -> bool:
    """Tell whether a file of this name is an image."""
    return name.lower().endswith(SUFFIXES)


def folder_names(folder: Path) -> list[str]:
    """Return the sorted names of the visible folders in `folder`; none if it does not exist."""
    return [name for name, kind in _visible(folder) if kind == "folder"]


def image_names(folder: Path) -> list[str]:
    """Return the sorted names of the visible image files in `folder`; none if it does not exist."""
    return [name for name, kind in _visible(folder) if kind == "file" and is_image(name)]


def stray_faults(folder: Path, *, of_classes: bool = False) -> Iterator[str]:
    """Yield what in `folder` a person may take for images or classes that are read, and is not.

    Hidden files (`.DS_Store`, `._a.jpg`) and what is kept `BESIDE` images are no fault; nor are folders in a
    folder `of_classes`.
    """
    unread = []
    for name, kind in _visible(folder):
        if shown(name) != name:
            yield f"{folder / shown(name)} has a name that is not UTF-8; rename it."
        if kind == "other":
            yield f"{folder / shown(name)} is a broken link or not a file; replace or remove it."
        elif kind == "folder":
            if not of_classes:
                yield f"{folder / shown(name)} is a folder among images and is not read; move it."
        elif not is_image(name) and not _is_beside(name):
            unread.append(name)
    if unread:
        count = (
            "1 file that is not an image" if len(unread) == 1 else f"{len(unread)} files that are not images"
        )
        yield (
            f"{folder} holds {count}, such as {shown(unread[0])}: images end in {', '.join(SUFFIXES)}; "
            "convert or remove them."
        )


def shown(name: str) -> str:
    """Return a file name as text; the bytes of one that is not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _visible(folder: Path) -> list[tuple[str, str]]:
    """Return sorted name and kind ("file", "folder", "other") of what is in `folder` and not hidden."""
    if not folder.is_dir():
        return []
    with reading(folder, "a folder"), os.scandir(folder) as entries:
        return sorted((entry.name, _kind(entry)) for entry in entries if not entry.name.startswith("."))


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        return "file" if entry.is_file() else "folder" if entry.is_dir() else "other"
    except OSError:  # links in a circle
        return "other"


def _is_beside(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return suffix in BESIDE or (not suffix and name.isupper())  # README, MD5SUMS


# ---- many files --------------------------------------------------------------------------------------------


def unreadable(paths: Iterable[Path], *, what: str) -> Iterator[str]:
    """Decode every file on all cores and yield a sentence for each that fails."""
    return file_faults(list(paths), decoding_fault, what=what)


def decoding_fault(path: Path) -> str | None:
    """Decode a file and say what is wrong with it, if anything."""
    return fault_of(open_image, path)
