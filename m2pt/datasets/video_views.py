"""Views of a video: the frames to decode, and the input made from them."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import resize

from m2pt.datasets.augmentations import ClipAugmentation, ClipCropAugmentation, MultiView
from m2pt.datasets.video import clip_frames, count_starts, kept_frames, spread
from m2pt.datasets.video_augmentation import finetuning_transform, multi_scale_crop, to_input
from m2pt.errors import InputError


class View(ABC):
    """Turns videos into inputs: clips of `frames` frames, `stride` apart, `side` x `side` pixels.

    `samples` is the number of calls of `transform` on the frames of one decoding.
    """

    samples = 1

    def __init__(self, frames: int, stride: int, side: int) -> None:
        self.frames, self.stride, self.side = frames, stride, side

    @abstractmethod
    def indices(self, length: int) -> list[int]:
        """Return the indices of the frames to decode in a video of `length` frames."""

    @abstractmethod
    def transform(self, frames: Tensor) -> Tensor:
        """Make an input of those frames, uint8 (N, 3, H, W)."""


class CentralView(View):
    """The central square of the clip in the middle of the video: (3, T, S, S)."""

    def indices(self, length: int) -> list[int]:
        """Return the middle one of the possible clips."""
        start = (count_starts(self.frames, self.stride, length) - 1) // 2
        return clip_frames(start, self.frames, self.stride, length)

    def transform(self, frames: Tensor) -> Tensor:
        """Crop and scale the square."""
        return to_input(scaled(central_square(frames), self.side))


class RandomView(View):
    """A clip with a random start; draws from torch's global generator."""

    def indices(self, length: int) -> list[int]:
        """Draw one of the possible clips."""
        start = int(torch.randint(count_starts(self.frames, self.stride, length), ()))
        return clip_frames(start, self.frames, self.stride, length)


class PretrainingView(RandomView):
    """A clip of VideoMAE's pretraining: (3, T, S, S)."""

    def __init__(self, frames: int, stride: int, side: int, augmentation: ClipCropAugmentation) -> None:
        super().__init__(frames, stride, side)
        self._augmentation = augmentation

    def transform(self, frames: Tensor) -> Tensor:
        """Crop, perhaps flip, and scale."""
        return to_input(scaled(multi_scale_crop(frames, self._augmentation), self.side))


class FinetuningView(RandomView):
    """A clip of VideoMAE's finetuning, `samples` times: (3, T, S, S) each."""

    def __init__(self, frames: int, stride: int, side: int, augmentation: ClipAugmentation) -> None:
        super().__init__(frames, stride, side)
        self.samples = augmentation.samples
        self._augment = finetuning_transform(side, augmentation)

    def transform(self, frames: Tensor) -> Tensor:
        """Augment; every call draws new random numbers."""
        return self._augment(frames)


class MultiClipView(View):
    """VideoMAE's test views, all of one decoding: (clips * crops, 3, T, S, S), the crops of a clip in a row.

    Every `stride`-th frame of the video is kept. `clips` windows of T kept frames are spread from the first
    to the last; the shorter side is scaled to S, and `crops` squares are spread along the longer one (three:
    left, center, right). A single clip or crop is in the middle.
    """

    def __init__(self, frames: int, stride: int, side: int, views: MultiView) -> None:
        super().__init__(frames, stride, side)
        self.clips, self.crops = views.clips, views.crops

    def indices(self, length: int) -> list[int]:
        """Return the windows one after the other: a long video takes no more memory than a short one."""
        kept = kept_frames(self.frames, self.stride, length)
        starts = spread(self.clips, len(kept) - self.frames)
        return [number for start in starts for number in kept[start : start + self.frames]]

    def transform(self, frames: Tensor) -> Tensor:
        """Scale all frames and crop every view."""
        clips = to_input(resize(frames, [self.side], antialias=True)).unflatten(1, (self.clips, self.frames))
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
    augmentation: ClipAugmentation | ClipCropAugmentation | None = None,
    views: MultiView | None = None,
) -> View:
    """Return the view for training (`augmentation`), for testing (`views`), or the central one.

    Raises:
        InputError: both `augmentation` and `views` are given.
    """
    if views is not None and augmentation is not None:
        raise InputError("give either augmentation (for training) or views (for testing), not both.")
    if views is not None:
        return MultiClipView(frames, stride, side, views)
    if isinstance(augmentation, ClipAugmentation):
        return FinetuningView(frames, stride, side, augmentation)
    if augmentation is not None:
        return PretrainingView(frames, stride, side, augmentation)
    return CentralView(frames, stride, side)


def central_square(clip: Tensor) -> Tensor:
    """Return the central square (T, C, S, S) of a clip (T, C, H, W) with S the shorter side."""
    height, width = clip.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return clip[..., top : top + side, left : left + side]


def scaled(clip: Tensor, side: int) -> Tensor:
    """Scale a clip (T, C, H, W) of uint8 to squares of `side` pixels, bilinear with antialiasing."""
    return functional.interpolate(clip.contiguous(), (side, side), mode="bilinear", antialias=True)
