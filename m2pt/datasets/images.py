"""Reading image files, and saying which of them cannot be read."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from m2pt.datasets.faults import file_faults
from m2pt.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Endings of image file names, compared in lower case."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels in [0, 1], channels red, green, blue."""

FILL = [round(255 * mean) for mean in MEAN]
"""The colour of padding: ImageNet's mean, which is zero after normalisation."""


def is_image(name: str) -> bool:
    """Tell whether a file of this name is an image."""
    return name.lower().endswith(SUFFIXES)


def open_image(path: Path) -> Image.Image:
    """Decode an image file as RGB.

    Raises:
        InputError: the file is missing, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise InputError(unreadable_message(path, error)) from error


def image_size(path: Path) -> tuple[int, int] | None:
    """Return width and height as an image's header gives them; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except OSError:
        return None


def folder_names(folder: Path) -> list[str]:
    """Return the sorted names of the folders in `folder`; none if it does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def image_names(folder: Path) -> list[str]:
    """Return the sorted names of the image files in `folder`; none if it does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image(entry.name))


def unreadable(paths: Iterable[Path], *, what: str) -> Iterator[str]:
    """Decode every file on all cores and yield a sentence for each that fails."""
    return file_faults(list(paths), decoding_fault, what=what)


def decoding_fault(path: Path) -> str | None:
    """Decode a file and say what is wrong with it, if anything."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return unreadable_message(path, error)
    return None


def unreadable_message(path: Path, error: Exception) -> str:
    """Say that `path` cannot be decoded, and why."""
    return f"{path} is missing, truncated or no image: {error}."
