"""Where a view lies in its image: a window of the source, resampled to a size, padded to a square.

A view is cut before it is resampled, so that large-scale jitter to twice the size costs no more than the
view it ends in; up to the rounding of the window to whole pixels this is the same as resampling first.
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
    """A window `(top, left, height, width)` of the source in pixels, resampled to `size` = (height, width).

    The view is a square of `side` pixels; what `size` leaves of it is padding on the right and at the bottom.
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
    """Return a random window of an image enlarged by `ratio`: as much of it as the square can hold."""
    size = (min(side, _scaled(height, ratio)), min(side, _scaled(width, ratio)))
    window = (min(height, _scaled(size[0], 1 / ratio)), min(width, _scaled(size[1], 1 / ratio)))
    top = int(torch.randint(height - window[0] + 1, ()))
    left = int(torch.randint(width - window[1] + 1, ()))
    return Frame(top, left, *window, size, side)


def normalized(pixels: Tensor) -> Tensor:
    """Turn uint8 (3, H, W) into float32 with ImageNet's mean 0 and standard deviation 1."""
    return pixels.float().sub_(_MEAN).div_(_STD)


def _scaled(length: int, ratio: float) -> int:
    return max(1, round(length * ratio))
