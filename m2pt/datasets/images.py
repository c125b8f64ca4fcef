"""Finding and decoding the image files of a folder.

Readers and checks list and decode images through the same functions: what the check accepts can be read.
"""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from m2pt.datasets.reading import reading
from m2pt.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes of image files, in lower case: those of torchvision's `ImageFolder`."""

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "JPEG2000")
"""Formats that are decoded, whatever the suffix: ImageNet has a PNG named `.JPEG`. Not EPS, for which Pillow
starts programs."""

DOCUMENTS = (".txt", ".md", ".rst", ".html", ".pdf", ".log", ".py", ".sh", ".m", ".ini", ".lock")
RECORDS = (".json", ".csv", ".tsv", ".xml", ".yaml", ".mat", ".npy", ".npz", ".pkl", ".db", ".lst", ".idx")
ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zip", ".7z", ".rar", ".md5", ".sha1", ".sha256")
BESIDE = {*DOCUMENTS, *RECORDS, *ARCHIVES}
"""Suffixes of files that are often stored next to images and ignored."""

LARGEST = 178_956_970
"""Most pixels of an image: Pillow's limit for decompression bombs. RGB takes 4 bytes per pixel."""

LONGEST = 100
"""Largest aspect ratio of an image: transforms resize the shorter side, so the longer could become huge."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels in [0, 1], channels red, green, blue."""

FILL = [round(255 * mean) for mean in MEAN]
"""The color of padding: ImageNet's mean, which is zero after normalization."""

# Pillow warns from half of its limit on; here a file is read or rejected with a message.
Image.MAX_IMAGE_PIXELS = LARGEST
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


# ---- one file ----------------------------------------------------------------------------------------------


def open_image(path: Path, content: bytes | None = None) -> Image.Image:
    """Decode an image file as RGB, the first frame of several.

    EXIF orientation, ICC profiles and transparency are ignored, as in torchvision and timm. 16-bit samples
    keep their high byte.

    Args:
        path: the file; with `content`, only its name in messages.
        content: bytes of a file that is part of another.

    Raises:
        InputError: the file is missing, truncated, not an image, too large, or has pixels of 32 bits.
    """
    with opened(path, content=content) as image:
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
            samples = (np.asarray(image) >> 8).astype(np.uint8)  # convert() would clip at 255
            return Image.fromarray(samples).convert("RGB")
        if image.mode in ("I", "F"):
            raise InputError(f"{path} has 32-bit pixels of unknown range; save it with 8 bits.")
        if image.mode == "RGB":
            image.load()
            return image  # convert() would copy it
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
def opened(
    path: Path, formats: tuple[str, ...] = FORMATS, *, content: bytes | None = None
) -> Iterator[ImageFile.ImageFile]:
    """Open an image file, or its `content`, after checking its header. Put only the decoding into the block.

    Raises:
        InputError: the file is missing, not an image of one of the `formats`, too large, or decoding fails.
    """
    with reading(path, "an image" if formats is FORMATS else f"a {' or '.join(formats)} image"):
        if content is None and not path.is_file():  # opening a pipe would block
            raise InputError(f"{path} is missing, a broken link or not a regular file.")
        with Image.open(path if content is None else io.BytesIO(content), formats=formats) as image:
            if problem := size_problem(*image.size):
                raise InputError(f"{path} {problem}.")
            yield image


def size_problem(width: int, height: int) -> str | None:
    """Return the problem of an image of this size, or None. Bounds memory."""
    if width * height > LARGEST:
        return f"is {width}x{height} pixels, more than {LARGEST}; resize or remove it"
    if max(width, height) > LONGEST * min(width, height):
        return f"is {width}x{height} pixels, an aspect ratio above {LONGEST}; crop or remove it"
    return None


# ---- a folder ----------------------------------------------------------------------------------------------


def is_image(name: str) -> bool:
    """Return True if a file of this name is an image."""
    return name.lower().endswith(SUFFIXES)


def folder_names(folder: Path) -> list[str]:
    """Return the sorted names of the visible folders in `folder`; none if it does not exist."""
    return [name for name, kind in _visible(folder) if kind == "folder"]


def image_names(folder: Path) -> list[str]:
    """Return the sorted names of the visible image files in `folder`; none if it does not exist."""
    return [name for name, kind in _visible(folder) if kind == "file" and is_image(name)]


def unread_files(folder: Path, *, of_classes: bool = False) -> Iterator[str]:
    """Yield a problem for each entry of `folder` that looks like an image or a class but is not read.

    Hidden files (`.DS_Store`, `._a.jpg`), files with a suffix in `BESIDE` and, in a folder `of_classes`,
    folders are no problem.
    """
    unread = []
    for name, kind in _visible(folder):
        path = folder / printable_name(name)
        if printable_name(name) != name:
            yield f"{path} has a name that is not UTF-8; rename it."
        if kind == "other":
            yield f"{path} is a broken link or not a file; replace or remove it."
        elif kind == "folder":
            if not of_classes:
                yield f"{path} is a folder among images and is not read; move it."
        elif not is_image(name) and not _is_beside(name):
            unread.append(name)
    if unread:
        count = (
            "1 file that is not an image" if len(unread) == 1 else f"{len(unread)} files that are not images"
        )
        yield (
            f"{folder} has {count}, such as {printable_name(unread[0])}: images end in "
            f"{', '.join(SUFFIXES)}; convert or remove them."
        )


def printable_name(name: str) -> str:
    """Return a file name for a message; bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _visible(folder: Path) -> list[tuple[str, str]]:
    """Return the sorted names and kinds ("file", "folder", "other") of entries that are not hidden."""
    if not folder.is_dir():
        return []
    with reading(folder, "a folder"), os.scandir(folder) as entries:
        return sorted((entry.name, _kind(entry)) for entry in entries if not entry.name.startswith("."))


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        return "file" if entry.is_file() else "folder" if entry.is_dir() else "other"
    except OSError:  # a loop of links
        return "other"


def _is_beside(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return suffix in BESIDE or (not suffix and name.isupper())  # README, MD5SUMS
