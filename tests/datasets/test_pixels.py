"""Pixels of images as tensors: those of Pillow's decoder, from every file that it reads."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from m2pt.datasets.images import open_image
from m2pt.datasets.pixels import open_pixels
from m2pt.errors import InputError


def picture() -> Image.Image:
    y, x = np.mgrid[:45, :61]
    waves = 128 + 120 * np.sin(np.stack([x * y / 90, (x + 2 * y) / 7, np.hypot(x, y) / 5], axis=-1))
    return Image.fromarray(waves.astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


FILES = {
    "baseline": encoded(picture()),
    "progressive": encoded(picture(), progressive=True),
    "444": encoded(picture(), subsampling=0),
    "422": encoded(picture(), subsampling=1),
    "restarts": encoded(picture(), restart_marker_rows=1),
    "gray": encoded(picture().convert("L")),
    "cmyk": encoded(picture().convert("CMYK")),
    "png": encoded(picture(), "PNG"),
    "palette": encoded(picture().convert("P"), "PNG"),
}


def outcome(decode: object, path: Path, content: bytes) -> np.ndarray | str:
    """Return the pixels, or the message of the error."""
    try:
        found = decode(path, content)  # type: ignore[operator]
    except InputError as error:
        return str(error)
    return found.permute(1, 2, 0).numpy() if isinstance(found, torch.Tensor) else np.asarray(found)


@pytest.mark.parametrize("name", FILES)
def test_they_are_those_of_pillow(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a picture.JPEG"
    path.write_bytes(FILES[name])
    pixels = open_pixels(path)
    assert pixels.dtype == torch.uint8 and pixels.stride()[0] == 1, "the colors are side by side"
    assert (pixels.permute(1, 2, 0).numpy() == np.asarray(open_image(path))).all()
    assert torch.equal(open_pixels(Path("in a shard"), FILES[name]), pixels)


@pytest.mark.parametrize("name", ["baseline", "progressive", "restarts"])
def test_a_damaged_file_gives_the_same_pixels_or_the_same_error(name: str) -> None:
    """simplejpeg refuses what Pillow repairs, and must not take what Pillow refuses."""
    draw, path, refused = random.Random(0), Path("a.JPEG"), 0
    for number in range(300):
        content = bytearray(FILES[name])
        place = draw.randrange(len(content))
        if number % 3 == 0:
            del content[place:]
        elif number % 3 == 1:
            content[place] ^= 1 << draw.randrange(8)
        else:
            content[place : place + 32] = bytes(draw.randrange(256) for _ in range(32))
        expected = outcome(open_image, path, bytes(content))
        found = outcome(open_pixels, path, bytes(content))
        assert type(found) is type(expected) and np.array_equal(found, expected), number
        refused += isinstance(expected, str)
    assert 30 < refused < 270


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.JPEG is missing, a broken link or not a regular file"):
        open_pixels(tmp_path / "a.JPEG")
