"""timm's policies at their strongest levels."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import (
    augment_and_mix_transform,
    auto_augment_transform,
    rand_augment_transform,
)

from m2pt.datasets.augmentations import ImageAugmentation
from m2pt.datasets.imagenet import training_view
from m2pt.datasets.policies import allow_black, posterize
from m2pt.datasets.video_augmentation import ClipRandAugment

PIXELS = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
STRONGEST = "rand-m10-n8-inc1"


@pytest.mark.parametrize("bits", range(9))
def test_posterizing_keeps_the_highest_bits(bits: int) -> None:
    kept = np.asarray(posterize(Image.fromarray(PIXELS), bits))
    np.testing.assert_array_equal(kept, PIXELS >> (8 - bits) << (8 - bits) if bits else 0 * PIXELS)


@pytest.mark.parametrize(
    "policy",
    [
        rand_augment_transform(STRONGEST, {}),
        rand_augment_transform("rand-m0", {}),
        auto_augment_transform("v0r-mstd0.5", {}),
        augment_and_mix_transform("augmix-m10", {}),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_every_kind_of_policy_can_be_black(policy: Any) -> None:
    allow_black(policy)
    operations = (
        [each for part in policy.policy for each in part] if hasattr(policy, "policy") else policy.ops
    )
    found = [operation for operation in operations if operation.name.startswith("Posterize")]
    assert found and all(operation.aug_fn is posterize for operation in found)


def test_the_views_of_images_and_clips_survive_the_strongest_level() -> None:
    random.seed(0)
    np.random.seed(0)
    view = training_view(16, ImageAugmentation(auto_augment=STRONGEST))
    clip = ClipRandAugment(STRONGEST)
    for _ in range(40):
        assert view(Image.fromarray(PIXELS)).isfinite().all()
        assert clip(torch.from_numpy(PIXELS).permute(2, 0, 1)[None]).shape == (1, 3, 16, 16)
