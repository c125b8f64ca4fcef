"""timm's augmentation policies with any Pillow. Importing it takes 2 s: import it where it is needed."""

from itertools import chain
from typing import Any

from PIL import Image, ImageOps
from timm.data import auto_augment


def allow_black(*steps: Any) -> None:
    """Let the posterizing operations of timm's policies among `steps` keep 0 bits, which is a black image.

    Pillow 13 refuses 0 bits. timm's levels go down to it: "rand-m9-mstd0.5-inc1" for 0.1 % of all images.
    """
    for step in steps:
        for operation in chain(getattr(step, "ops", ()), *getattr(step, "policy", ())):
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = posterize


def posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """Keep the highest bits of every sample."""
    if bits_to_keep <= 0:
        return Image.new(image.mode, image.size)
    return image if bits_to_keep >= 8 else ImageOps.posterize(image, bits_to_keep)
