"""What is seen of a video: which frames are decoded, and which input is made of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import resize

from m2pt.datasets.augmentation import settings_of
from m2pt.datasets.video import clip_frames, count_starts, kept_frames, spread
from m2pt.datasets.video_augmentation import (
    FinetuningAugmentation,
    PretrainingAugmentation,
    finetuning_transform,
    to_input,
)
from m2pt.errors import InputError


class View(ABC):
    """A way to look at videos: clips of `frames` frames, `stride` apart, `side` x `side` pixels.

    `samples` is how often `look` is to be called on the frames of one decoding.
    """

    samples = 1

    def __init__(self, frames: int, stride: int, side: int) -> None:
        self.frames, self.stride, self.side = frames, stride, side

    @abstractmethod
    def choose(self, length: int) -> list[int]:
        """Return the numbers of the frames to look at in a video of `length` frames."""

    @abstractmethod
    def look(self, pictures: Tensor) -> Tensor:
        """Make an input of those frames, uint8 (N, 3, H, W)."""


class CentralView(View):
    """The clip in the middle of the video, the central square of its frames: (3, T, S, S)."""

    def choose(self, length: int) -> list[int]:
        """The middle of the possible clips."""
        start = (count_starts(self.frames, self.stride, length) - 1) // 2
        return clip_frames(start, self.frames, self.stride, length)

    def look(self, pictures: Tensor) -> Tensor:
        """Cut and scale the square."""
        return to_input(scaled(central_square(pictures), self.side))


class RandomView(View):
    """A clip that starts anywhere; draws from torch's global generator."""

    def choose(self, length: int) -> list[int]:
        """One of the possible clips."""
        start = int(torch.randint(count_starts(self.frames, self.stride, length), ()))
        return clip_frames(start, self.frames, self.stride, length)


class PretrainingView(RandomView):
    """A clip as VideoMAE's pretraining sees it: (3, T, S, S)."""

    def __init__(self, frames: int, stride: int, side: int, augmentation: PretrainingAugmentation) -> None:
        super().__init__(frames, stride, side)
        self._augment = augmentation

    def look(self, pictures: Tensor) -> Tensor:
        """Crop, perhaps flip, and scale."""
        return to_input(scaled(self._augment(pictures), self.side))


class FinetuningView(RandomView):
    """A clip as VideoMAE's finetuning sees it, `samples` times: (3, T, S, S) each."""

    def __init__(self, frames: int, stride: int, side: int, augmentation: FinetuningAugmentation) -> None:
        super().__init__(frames, stride, side)
        self.samples = augmentation.samples
        self._augment = finetuning_transform(side, augmentation)

    def look(self, pictures: Tensor) -> Tensor:
        """Augment; other draws in each call."""
        return self._augment(pictures)


class MultiView(View):
    """VideoMAE's test views, all of one decoding: (clips * crops, 3, T, S, S), a clip's crops side by side.

    Every `stride`-th frame of the whole video is kept. `clips` windows of T kept frames are spread from the
    first to the last; the shorter side is scaled to S, and `crops` squares are spread along the longer one
    (three: left, centre, right). One clip or one crop lies in the middle.
    """

    def __init__(self, frames: int, stride: int, side: int, *, clips: int, crops: int) -> None:
        super().__init__(frames, stride, side)
        self.clips, self.crops = clips, crops

    def choose(self, length: int) -> list[int]:
        """The windows one after the other, so that a long video takes no more memory than a short one."""
        kept = kept_frames(self.frames, self.stride, length)
        starts = spread(self.clips, len(kept) - self.frames)
        return [number for start in starts for number in kept[start : start + self.frames]]

    def look(self, pictures: Tensor) -> Tensor:
        """Scale all frames and cut every view."""
        clips = to_input(resize(pictures, [self.side], antialias=True)).unflatten(
            1, (self.clips, self.frames)
        )
        height, width = clips.shape[-2:]
        corners = list(
            zip(spread(self.crops, height - self.side), spread(self.crops, width - self.side), strict=True)
        )
        return torch.stack(
            [
                clip[..., top : top + self.side, left : left + self.side]
                for clip in clips.unbind(1)
                for top, left in corners
            ]
        )


def make_view(
    frames: int,
    stride: int,
    side: int,
    *,
    augmentation: Mapping[str, Any] | None = None,
    views: Mapping[str, int] | None = None,
) -> View:
    """Return the view that a reader's settings ask for.

    `views` (keys `clips`, `crops`): test views. `augmentation` with the key `scale`: finetuning, see
    `FinetuningAugmentation`; without: pretraining, see `PretrainingAugmentation`. Neither: the central view.

    Raises:
        InputError: both are given, or `augmentation` has an unknown key.
    """
    if views is not None:
        if augmentation is not None:
            raise InputError("give either augmentation, which is for training, or views, for testing.")
        return MultiView(frames, stride, side, **views)
    kind: type[FinetuningAugmentation | PretrainingAugmentation]
    kind = FinetuningAugmentation if "scale" in (augmentation or {}) else PretrainingAugmentation
    settings = settings_of(kind, augmentation)
    if settings is None:
        return CentralView(frames, stride, side)
    if isinstance(settings, FinetuningAugmentation):
        return FinetuningView(frames, stride, side, settings)
    return PretrainingView(frames, stride, side, settings)


def central_square(clip: Tensor) -> Tensor:
    """Return the central square (T, C, S, S) of a clip (T, C, H, W) with S the shorter side."""
    height, width = clip.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return clip[..., top : top + side, left : left + side]


def scaled(clip: Tensor, side: int) -> Tensor:
    """Scale a clip (T, C, H, W) of uint8 to squares of `side` pixels, bilinear with antialiasing."""
    return functional.interpolate(clip.contiguous(), (side, side), mode="bilinear", antialias=True)
