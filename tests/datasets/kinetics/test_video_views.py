"""Several views of one video: clips from end to end, crops along the long side, one decoding."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numbered_videos import FINETUNING, numbers, pixels, write_video
from torch.nn import functional as F

from m2pt.datasets import kinetics
from m2pt.datasets.augmentations import MultiView
from m2pt.datasets.video import kept_frames, spread
from m2pt.datasets.video_views import MultiClipView


def test_offsets_are_spread_from_end_to_end() -> None:
    assert spread(1, 9) == [4] and spread(2, 9) == [0, 9] and spread(3, 9) == [0, 4, 9]
    assert spread(5, 0) == [0] * 5
    for count, room in ((5, 59), (10, 7), (3, 160)):
        step = Fraction(room, count - 1)
        assert spread(count, room) == [int(step * number) for number in range(count)]


def test_test_frames_are_every_strideth_of_the_whole_video() -> None:
    assert kept_frames(4, 4, 18) == [0, 4, 8, 12, 16]
    assert kept_frames(4, 4, 5) == [0, 4, 4, 4]
    assert kept_frames(2, 3, 1) == [0, 0]


def test_windows_of_test_clips_reach_both_ends() -> None:
    view = MultiClipView(4, 2, 8, MultiView(clips=5, crops=1))
    chosen = view.indices(21)
    frames = torch.tensor(chosen, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    seen = [pixels(clip)[:, 0, 0, 0].round().tolist() for clip in view.transform(frames)]
    assert seen == [[0, 2, 4, 6], [2, 4, 6, 8], [6, 8, 10, 12], [10, 12, 14, 16], [14, 16, 18, 20]]
    assert len(view.indices(10**6)) == 20, "a long video takes no more memory"


@pytest.mark.parametrize("tall", [False, True])
def test_test_crops_slide_along_the_long_side(tall: bool) -> None:
    places = torch.arange(21, dtype=torch.uint8).expand(2, 3, 8, 21)
    seen = MultiClipView(2, 1, 8, MultiView(clips=1, crops=3)).transform(
        places.transpose(2, 3) if tall else places
    )
    assert seen.shape == (3, 3, 2, 8, 8)
    lines = [pixels(clip)[0, :, 0, 0] if tall else pixels(clip)[0, 0, :, 0] for clip in seen]
    starts = [0, 6, 13]  # left (or top), center, right (or bottom)
    np.testing.assert_allclose(lines, [np.arange(start, start + 8) for start in starts], atol=1e-4)


def test_the_shorter_side_is_scaled_before_the_crops() -> None:
    frames = torch.randint(256, (4, 3, 24, 40), dtype=torch.uint8)
    seen = MultiClipView(2, 1, 12, MultiView(clips=2, crops=2)).transform(frames)
    scaled = F.interpolate(frames.double(), (12, 20), mode="bilinear", antialias=True)
    expected = [scaled[start : start + 2, :, :, left : left + 12] for start in (0, 2) for left in (0, 8)]
    for clip, exact in zip(seen, expected, strict=True):
        np.testing.assert_allclose(pixels(clip), exact.permute(0, 2, 3, 1), atol=1)


def test_views_of_a_short_video_repeat_its_last_frame(root: Path) -> None:
    write_video(root / "some videos/val0.mp4", range(5))
    views = MultiView(clips=2, crops=1)
    reader = kinetics.Reader(root, "val", num_classes=2, image_size=48, frames=4, stride=2, views=views)
    assert [numbers(pixels(clip)) for clip in reader[0][0]] == [[0, 2, 4, 4]] * 2


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []
    original = av.open

    def counting(file: str, *arguments: object, **options: object):
        opened.append(file.removeprefix("file:"))
        return original(file, *arguments, **options)

    monkeypatch.setattr(av, "open", counting)
    return opened


def test_a_video_is_decoded_once_for_all_of_its_views(root: Path, decodings: list[str]) -> None:
    settings = {"num_classes": 2, "image_size": 48, "frames": 8, "stride": 4}
    views, label = kinetics.Reader(root, "val", **settings, views=MultiView(clips=3, crops=2))[1]
    assert views.shape == (6, 3, 8, 48, 48) and label == 1
    assert [numbers(pixels(clip))[0] for clip in views] == [0, 0, 12, 12, 28, 28]
    repeated = kinetics.Reader(root, "train", **settings, augmentation=replace(FINETUNING, samples=3))[1]
    assert [label for _, label in repeated] == [1, 1, 1]
    assert decodings == [str(root / "some videos/val1.mp4"), str(root / "some videos/train1.mp4")]
