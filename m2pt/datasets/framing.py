"""Views of an image: a window of the source, resized, and padded to a square.

The window is cut before it is resized, so that large-scale jitter to twice the size costs no more than the
resulting view. Up to rounding the window to whole pixels this equals resizing first.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from m2pt.datasets.images import MEAN, STD

T = TypeVar("T", bound=Tensor)

_MEAN = 255 * torch.tensor(MEAN).view(3, 1, 1)
_STD = 255 * torch.tensor(STD).view(3, 1, 1)


@dataclass(frozen=True)
class Frame:
    """A window `(top, left, height, width)` of the source in pixels, resized to `size` = (height, width).

    The view is a square of `side` pixels, padded on the right and at the bottom where `size` is smaller.
    """

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]
    side: int

    def apply(self, value: T, fill: float | list[int] = 0) -> T:
        """Return the view of a tv_tensor: bilinear for images, nearest for masks, clipped for boxes."""
        window = (self.top, self.left, self.height, self.width)
        value = F.resized_crop(value, *window, size=list(self.size), antialias=True)
        height, width = self.size
        return F.pad(value, [0, 0, self.side - width, self.side - height], fill=fill)  # type: ignore[return-value]


def fit(height: int, width: int, side: int) -> Frame:
    """Return the frame that shows a whole image as large as it fits into a square of `side` pixels."""
    ratio = side / max(height, width)
    return Frame(0, 0, height, width, (_scaled(height, ratio), _scaled(width, ratio)), side)


def random_frame(height: int, width: int, side: int, ratio: float) -> Frame:
    """Return a random window of an image scaled by `ratio`: as much of it as fits into the square."""
    size = (min(side, _scaled(height, ratio)), min(side, _scaled(width, ratio)))
    window = (min(height, _scaled(size[0], 1 / ratio)), min(width, _scaled(size[1], 1 / ratio)))
    top = int(torch.randint(height - window[0] + 1, ()))
    left = int(torch.randint(width - window[1] + 1, ()))
    return Frame(top, left, *window, size, side)


def normalized(pixels: Tensor) -> Tensor:
    """Return uint8 (3, H, W) as float32, normalized with ImageNet's mean and standard deviation."""
    return pixels.float().sub_(_MEAN).div_(_STD)


def _scaled(length: int, ratio: float) -> int:
    return max(1, round(length * ratio))
