"""Augmentation of video clips; all frames of a clip are treated alike.

A clip is uint8 (T, 3, H, W) until `to_input` turns it into the model's input.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose
from torchvision.transforms.v2 import ColorJitter, RandomHorizontalFlip, RandomResizedCrop

from m2pt.datasets.augmentations import ClipAugmentation, ClipCropAugmentation
from m2pt.datasets.framing import normalized

CROP_POSITIONS = [(row, column) for row in range(5) for column in range(5) if row % 2 == column % 2]
"""The 13 places of a crop, in quarters of the free space: a 3 x 3 grid and the points between."""


def multi_scale_crop(clip: Tensor, settings: ClipCropAugmentation) -> Tensor:
    """Crop a clip (T, C, H, W) and perhaps flip it, as VideoMAE's pretraining does.

    Height and width of the crop are the shorter side times two neighbors in `crop_scales`; the crop is at
    one of 13 places. Draws from torch's global generator.
    """
    height, width = clip.shape[-2:]
    first = _draw(len(settings.crop_scales))
    second = min(max(first + _draw(3) - 1, 0), len(settings.crop_scales) - 1)
    size = [int(min(height, width) * settings.crop_scales[i]) for i in (first, second)]
    row, column = CROP_POSITIONS[_draw(len(CROP_POSITIONS))]
    top, left = row * (height - size[0]) // 4, column * (width - size[1]) // 4
    clip = clip[..., top : top + size[0], left : left + size[1]]
    return clip.flip(-1) if torch.rand(()) < settings.hflip else clip


def finetuning_transform(side: int, settings: ClipAugmentation) -> Callable[[Tensor], Tensor]:
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

    As in VideoMAE, interpolation is bicubic, and the area that a rotated or shifted frame uncovers is gray.
    """

    def __init__(self, name: str) -> None:
        from timm.data.auto_augment import rand_augment_transform  # imported here: it takes 2 s

        from m2pt.datasets.policies import allow_black

        self._augment = rand_augment_transform(name, {"interpolation": Image.Resampling.BICUBIC})
        allow_black(self._augment)

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
    """timm's random erasing: noise in a box that is the same in all frames of a normalized clip."""

    def __init__(self, probability: float) -> None:
        from timm.data.random_erasing import RandomErasing

        self._erase = RandomErasing(probability, mode="pixel", device="cpu")

    def __call__(self, clip: Tensor) -> Tensor:
        """Perhaps erase a box of a clip, float32 (T, 3, H, W); draws from Python's and torch's generators."""
        # timm gets one image of 3 T channels: one box, and different noise in every frame
        return self._erase(clip.flatten(0, 1)).unflatten(0, (-1, 3))


def channels_first(clip: Tensor) -> Tensor:
    """Return a clip (T, 3, H, W) as (3, T, H, W), the model's order."""
    return clip.transpose(0, 1)


def to_input(clip: Tensor) -> Tensor:
    """Turn uint8 (T, 3, H, W) into the model's float32 (3, T, H, W), normalized as for ImageNet."""
    return channels_first(normalized(clip))


def _draw(bound: int) -> int:
    return int(torch.randint(bound, ()))
