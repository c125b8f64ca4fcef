"""What training does to the frames of a clip; all frames of a clip are treated alike.

A clip is uint8 (T, 3, H, W) here until `to_input` turns it into what the model takes.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose
from torchvision.transforms.v2 import ColorJitter, RandomHorizontalFlip, RandomResizedCrop

from m2pt.datasets.framing import normalized

CROP_POSITIONS = [(row, column) for row in range(5) for column in range(5) if row % 2 == column % 2]
"""The 13 places of a crop, in quarters of the free space: a grid of three by three and the points between."""


@dataclass(frozen=True)
class PretrainingAugmentation:
    """VideoMAE's multi-scale crop and a horizontal flip.

    Height and width of the crop are the shorter side times two neighbours in `crop_scales` (official:
    1, .875, .75, .66), at one of 13 places. `hflip` is a probability (official pretraining: 0).
    """

    crop_scales: Sequence[float] = (1.0,)
    hflip: float = 0.0

    def __call__(self, clip: Tensor) -> Tensor:
        """Crop and perhaps flip a clip (T, C, H, W); draws from torch's global generator."""
        height, width = clip.shape[-2:]
        first = _draw(len(self.crop_scales))
        second = min(max(first + _draw(3) - 1, 0), len(self.crop_scales) - 1)
        size = [int(min(height, width) * self.crop_scales[i]) for i in (first, second)]
        row, column = CROP_POSITIONS[_draw(len(CROP_POSITIONS))]
        top, left = row * (height - size[0]) // 4, column * (width - size[1]) // 4
        clip = clip[..., top : top + size[0], left : left + size[1]]
        return clip.flip(-1) if torch.rand(()) < self.hflip else clip


@dataclass(frozen=True)
class FinetuningAugmentation:
    """VideoMAE's finetuning: RandAugment of the whole frames, random resized crop, flip, random erasing.

    `scale` and `ratio` bound the crop's area and aspect; `auto_augment` is timm's name of a RandAugment such
    as "rand-m7-n4-mstd0.5-inc1"; `color_jitter` is the strength of a jitter of brightness, contrast and
    saturation; `hflip` and `reprob` are probabilities. `samples` views are made of a clip that is decoded
    once (repeated augmentation, Hoffer et al. 2020).
    """

    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    auto_augment: str | None = None
    color_jitter: float | None = None
    reprob: float = 0.0
    samples: int = 1


def finetuning_transform(side: int, settings: FinetuningAugmentation) -> Callable[[Tensor], Tensor]:
    """Return the map from a clip to an input (3, T, side, side).

    It draws from the global generators of Python, NumPy and torch.
    """
    steps: list[Callable[[Any], Any]] = []
    if settings.auto_augment:
        steps.append(ClipRandAugment(settings.auto_augment))
    steps.append(RandomResizedCrop(side, settings.scale, settings.ratio, antialias=True))
    steps.append(RandomHorizontalFlip(settings.hflip))
    if settings.color_jitter:
        steps.append(ColorJitter(*[settings.color_jitter] * 3))
    steps.append(normalized)
    if settings.reprob:
        steps.append(ClipErasing(settings.reprob))
    return Compose([*steps, channels_first])


class ClipRandAugment:
    """timm's RandAugment, with the same operations and magnitudes for all frames of a clip.

    As in VideoMAE, interpolation is bicubic, and what a turned or shifted frame uncovers is grey.
    """

    def __init__(self, name: str) -> None:
        from timm.data.auto_augment import rand_augment_transform  # a check needs no timm: 2 s to import

        self._augment = rand_augment_transform(name, {"interpolation": Image.Resampling.BICUBIC})

    def __call__(self, clip: Tensor) -> Tensor:
        """Augment a clip; timm draws from Python's and NumPy's generators, the same for each frame."""
        drawn = random.getstate(), np.random.get_state()
        frames = []
        for frame in clip.permute(0, 2, 3, 1).numpy():
            random.setstate(drawn[0])
            np.random.set_state(drawn[1])
            frames.append(np.asarray(self._augment(Image.fromarray(frame))))
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


class ClipErasing:
    """timm's random erasing: noise in a box that is the same in all frames of a normalised clip."""

    def __init__(self, probability: float) -> None:
        from timm.data.random_erasing import RandomErasing

        self._erase = RandomErasing(probability, mode="pixel", device="cpu")

    def __call__(self, clip: Tensor) -> Tensor:
        """Perhaps erase a box of a clip, float32 (T, 3, H, W); draws from Python's and torch's generators."""
        # an image of 3 T channels to timm: one box, and noise of its own for every pixel of every frame
        return self._erase(clip.flatten(0, 1)).unflatten(0, (-1, 3))


def channels_first(clip: Tensor) -> Tensor:
    """(T, 3, H, W) to (3, T, H, W), as the model takes it."""
    return clip.transpose(0, 1)


def to_input(clip: Tensor) -> Tensor:
    """Turn uint8 (T, 3, H, W) into the model's float32 (3, T, H, W), normalised as for ImageNet."""
    return channels_first(normalized(clip))


def _draw(bound: int) -> int:
    return int(torch.randint(bound, ()))
