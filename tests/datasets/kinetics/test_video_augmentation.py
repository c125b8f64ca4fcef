"""Augmentation of clips: crops, flips, RandAugment and erasing by definition, all frames alike; repeats."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_videos import FINETUNING, RAND_AUGMENT, numbers, pixels
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch.nn import functional as F
from torch.utils.data import DataLoader

from m2pt.datasets import kinetics
from m2pt.datasets.augmentations import ClipAugmentation, ClipCropAugmentation
from m2pt.datasets.base import seed_generators
from m2pt.datasets.video_augmentation import (
    ClipErasing,
    ClipRandAugment,
    finetuning_transform,
    multi_scale_crop,
)


def test_multi_scale_crops_have_thirteen_places_and_neighboring_scales() -> None:
    scales = (1, 0.875, 0.75, 0.66)
    settings = ClipCropAugmentation(crop_scales=scales)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    clip = torch.stack([rows, columns]).expand(3, 2, 64, 96)
    torch.manual_seed(0)
    seen: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for _ in range(3000):
        view = multi_scale_crop(clip, settings)
        assert torch.equal(view[0], view[2]), "all frames are cropped alike"
        seen.setdefault((view.shape[2], view.shape[3]), set()).add(
            (int(view[0, 0, 0, 0]), int(view[0, 1, 0, 0]))
        )
    sizes = [int(64 * scale) for scale in scales]
    assert set(seen) == {(a, b) for i, a in enumerate(sizes) for j, b in enumerate(sizes) if abs(i - j) <= 1}
    corners_to_center = {(0, 0), (0, 48), (16, 0), (16, 48), (8, 24)}
    assert corners_to_center <= seen[(48, 48)] and len(seen[(48, 48)]) == 13
    assert (4, 12) in seen[(48, 48)]


def test_flips_and_resizing() -> None:
    clip = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    for hflip, expected in ((1, clip.flip(-1)), (0, clip)):
        whole = ClipCropAugmentation(crop_scales=(1,), hflip=hflip)
        assert torch.equal(multi_scale_crop(clip, whole), expected)
    small = F.interpolate(clip, (16, 16), mode="bilinear", antialias=True)
    exact = F.interpolate(clip.double(), (16, 16), mode="bilinear", antialias=True)
    assert (small - exact).abs().max() <= 1, "uint8 resizing rounds and does no more"


def test_rand_augment_does_to_each_frame_what_timm_does_to_it_alone() -> None:
    frames = np.random.default_rng(0).integers(256, size=(3, 24, 32, 3), dtype=np.uint8)
    alone = rand_augment_transform(RAND_AUGMENT, {"interpolation": Image.Resampling.BICUBIC})
    together = ClipRandAugment(RAND_AUGMENT)
    seen = set()
    for seed in range(12):
        seed_generators(seed)
        clip = together(torch.from_numpy(frames).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        after = random.random(), np.random.random()
        for frame, augmented in zip(frames, clip, strict=True):
            seed_generators(seed)
            np.testing.assert_array_equal(augmented, np.asarray(alone(Image.fromarray(frame))))
        assert after == (random.random(), np.random.random()), "a clip costs the draws of one frame"
        seen.add(clip.tobytes())
    assert len(seen) > 8, "other operations for other clips"


def test_finetuning_treats_all_frames_alike() -> None:
    frame = torch.randint(256, (1, 3, 40, 56), dtype=torch.uint8)
    augment = finetuning_transform(32, replace(FINETUNING, reprob=0))
    clips = [augment(frame.expand(4, -1, -1, -1)) for _ in range(4)]
    for clip in clips:
        assert clip.shape == (3, 4, 32, 32) and clip.dtype == torch.float32
        assert torch.equal(clip, clip[:, :1].expand(-1, 4, -1, -1))
    assert not any(torch.equal(clips[0], clip) for clip in clips[1:])


def test_crops_have_the_area_and_aspect_asked_for() -> None:
    rows, columns = torch.meshgrid(torch.arange(100), torch.arange(140), indexing="ij")
    clip = torch.stack([rows, columns, columns]).expand(1, 3, 100, 140).to(torch.uint8)
    augment = finetuning_transform(64, ClipAugmentation(scale=(0.2, 0.3), ratio=(0.5, 0.5), hflip=0.5))
    torch.manual_seed(0)
    flips = 0
    for _ in range(60):
        view = pixels(augment(clip))[0]
        height, width = np.ptp(view[..., 0]) + 1, np.ptp(view[..., 1]) + 1
        assert width / height == pytest.approx(0.5, abs=0.06)
        assert 0.18 < width * height / 14000 < 0.32
        flips += view[0, 0, 1] > view[0, -1, 1]
    assert 15 < flips < 45


def test_erasing_puts_noise_into_one_box_of_all_frames() -> None:
    erase, boxes = ClipErasing(0.5), set()
    for seed in range(40):
        seed_generators(seed)
        clip = erase(torch.full((4, 3, 20, 30), 7.0))
        erased = (clip != 7).all(dim=1)
        assert torch.equal((clip != 7).any(dim=1), erased), "all channels"
        assert torch.equal(erased, erased[:1].expand_as(erased)), "all frames"
        rows, columns = erased[0].any(1).nonzero(), erased[0].any(0).nonzero()
        if not len(rows):
            continue
        box = (int(rows[0]), int(columns[0]), len(rows), len(columns))
        assert erased[0].sum() == box[2] * box[3], "a full rectangle"
        noise = clip[:, :, box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
        assert not torch.equal(noise[0], noise[1]) and noise.mean().abs() < 0.5 and 0.7 < noise.std() < 1.3
        boxes.add(box)
    assert 10 < len(boxes) < 30, "half of the clips, each at its own place"


def finetuning_reader(root: Path, augmentation: ClipAugmentation) -> kinetics.Reader:
    settings = {"image_size": 48, "frames": 2, "stride": 4, "augmentation": augmentation}
    return kinetics.Reader(root, "train", num_classes=2, **settings)


def test_repeated_samples_show_the_same_frames_differently(root: Path) -> None:
    undisturbed = ClipAugmentation(scale=(1, 1), ratio=(1, 1), hflip=0, samples=2)
    one, other = finetuning_reader(root, undisturbed)[0]
    assert torch.equal(one[0], other[0]), "without augmentation the repetition shows"
    epochs = [finetuning_reader(root, undisturbed)[epoch, 0][0][0] for epoch in range(9)]
    assert len({numbers(pixels(clip))[0] for clip in epochs}) > 4, "the clip itself starts anywhere"
    one, other = finetuning_reader(root, replace(FINETUNING, samples=2))[0]
    assert not torch.equal(one[0], other[0])


def test_a_repeated_sample_depends_on_seed_epoch_and_index_alone(root: Path) -> None:
    reader = finetuning_reader(root, replace(FINETUNING, samples=2))
    keys = [(epoch, index) for epoch in (0, 3) for index in (1, 0)]
    alone = [reader[key] for key in keys]
    for workers in (0, 2):
        loader = DataLoader(reader, sampler=keys, batch_size=None, num_workers=workers)
        for samples, expected in zip(loader, alone, strict=True):
            for (clip, label), (expected_clip, expected_label) in zip(samples, expected, strict=True):
                assert torch.equal(clip, expected_clip) and label == expected_label
    assert not torch.equal(alone[0][0][0], alone[2][0][0]), "another epoch, another view"
