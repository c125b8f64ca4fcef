"""Views with the backend `tensor` against those of Pillow: the same draws, the same pictures to rounding."""

import dataclasses
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from m2pt.datasets.augmentations import ImageAugmentation
from m2pt.datasets.imagenet import Reader
from m2pt.datasets.images import STD
from m2pt.errors import InputError

PRETRAINING = ImageAugmentation(scale=(0.2, 1.0))
FINETUNING = ImageAugmentation(auto_augment="rand-m9-mstd0.5-inc1", reprob=0.25)
LEVELS = 255 * torch.tensor(STD).view(3, 1, 1)
"""Normalized values times this are levels of 8 bits."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes with edges, gradients and noise; three are a PNG, gray and CMYK."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / split / "a").mkdir(parents=True)
    for number, (width, height) in enumerate([(500, 375), (333, 500), (90, 70), (224, 224), (400, 380)] * 2):
        y, x = np.mgrid[:height, :width]
        waves = 128 + 120 * np.sin(np.stack([x * y / 900, (x + 2 * y) / 11, np.hypot(x, y) / 5], axis=-1))
        pixels = np.where((x // 40 + y // 40)[..., None] % 2, waves, generator.normal(128, 40, waves.shape))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image = image.convert({8: "L", 9: "CMYK"}.get(number, "RGB"))
        image.save(root / "train" / "a" / f"{number}.JPEG", "PNG" if number == 7 else "JPEG")
    return root


def views(root: Path, settings: ImageAugmentation) -> list[tuple[torch.Tensor, float]]:
    """Return views of two epochs, each with a number that is drawn after it from all three generators."""
    reader = Reader(root, "train", num_classes=1, image_size=224, augmentation=settings)
    keys = [(epoch, index) for epoch in range(2) for index in range(len(reader))]
    return [(reader[key][0], random.random() + np.random.rand() + torch.rand(()).item()) for key in keys]


@pytest.mark.parametrize(
    "settings",
    [
        PRETRAINING,
        dataclasses.replace(PRETRAINING, interpolation="random", color_jitter=0.4),
        dataclasses.replace(FINETUNING, auto_augment=None),
        FINETUNING,
    ],
    ids=["pretraining", "jitter", "erasing", "finetuning"],
)
def test_views_differ_from_pillow_s_by_rounding(root: Path, settings: ImageAugmentation) -> None:
    """Rounding is within 2 levels; a few pixels at edges differ by more, and some policies enlarge it."""
    means = []
    pairs = zip(
        views(root, settings), views(root, dataclasses.replace(settings, backend="tensor")), strict=True
    )
    for (exact, next_of_exact), (fast, next_of_fast) in pairs:
        assert next_of_fast == next_of_exact
        assert (fast.shape, fast.dtype, fast.stride()) == (exact.shape, exact.dtype, exact.stride())
        levels = ((fast - exact) * LEVELS).abs()
        assert (levels > 2.01).float().mean() < (
            0.03 if settings.auto_augment or settings.color_jitter else 1e-3
        )
        means.append(levels.mean().item())
    assert max(means) > 0, "the backend made no difference"
    assert sum(means) / len(means) < 0.25


def test_a_damaged_file_is_refused_in_the_same_words(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    broken = copy / "train" / "a" / "0.JPEG"
    broken.write_bytes(broken.read_bytes()[:-3000])
    messages = set()
    for settings in (PRETRAINING, dataclasses.replace(PRETRAINING, backend="tensor")):
        with pytest.raises(InputError, match=r"0\.JPEG cannot be read as an image: .*truncated") as error:
            Reader(copy, "train", num_classes=1, image_size=224, augmentation=settings)[0]
        messages.add(str(error.value))
    assert len(messages) == 1
