"""A modality and its layout: depth maps, which are planes of one channel."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from m2pt.config.strict import Strict
from m2pt.modalities.patches import PatchTokenizer
from m2pt.ranges import Size
from strangers import arrays
from strangers.arrays import Noise, Reader, check, classes, counts, files

__all__ = ["Noise", "Reader", "check", "classes", "counts", "files"]


class DepthInput(Strict):
    image_size: Size


class DepthPatches(Strict):
    patch_size: Size


class DepthMaps(Strict):
    """The section `modalities.depth`."""

    input: DepthInput
    tokenizer: DepthPatches


class DepthTokenizer(PatchTokenizer):
    """Square patches of one channel."""

    @classmethod
    def build(cls, dim: int, input: Mapping[str, Any], settings: Mapping[str, Any]) -> Self:
        side, patch = input["image_size"] // settings["patch_size"], settings["patch_size"]
        return cls(dim, channels=1, grid=(side, side), patch_size=patch, stride=patch)


def synthetic_batch(batch_size: int, *, device: torch.device, **settings: Any) -> tuple[Tensor, Tensor]:
    images, labels = arrays.synthetic_batch(batch_size, device=device, **settings)
    return images[:, :1], labels


build = partial(arrays.build, channels=1)
