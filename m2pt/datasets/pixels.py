"""Images as tensors of their pixels, with the fastest decoder that gives Pillow's."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from simplejpeg import decode_jpeg
from torch import Tensor

from m2pt.datasets.images import open_image, opened


def open_pixels(path: Path, content: bytes | None = None) -> Tensor:
    """Decode an image file to uint8 (3, height, width), with the colors of a pixel side by side in memory.

    They are the pixels of `open_image`. JPEG files are read by simplejpeg, which is faster and stricter:
    what it refuses, and all other images, go to Pillow.

    Args:
        path: the file; with `content`, only its name in messages.
        content: bytes of a file that is part of another.

    Raises:
        InputError: as `open_image`.
    """
    with opened(path, content=content) as image:
        is_common = image.format == "JPEG" and image.mode == "RGB"
        data = path.read_bytes() if is_common and content is None else content
    if is_common:
        with suppress(ValueError):
            return torch.from_numpy(decode_jpeg(data, "RGB")).permute(2, 0, 1)
    return torch.from_numpy(np.array(open_image(path, content))).permute(2, 0, 1)
