"""The settings of every augmentation; plain Python, so that reading a config imports no torch.

A recipe holds one of these under `augmentation`, and passes it to the reader of its dataset unchanged.
pydantic enforces the ranges where a config is read. The functions that apply an augmentation are in the
reader's module or next to it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, Len, MaxLen

from m2pt.errors import InputError
from m2pt.ranges import Factor, Fraction, PositiveFraction, Strength


@dataclass(frozen=True)
class _Check:
    """A check of one value for pydantic, with its own message, unlike those of `annotated_types`."""

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core.core_schema import no_info_after_validator_function

        return no_info_after_validator_function(self.function, handler(source))


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]:g} must not exceed the upper bound {bounds[1]:g}")
    return bounds


def _policy(name: str) -> str:
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError("must be one of timm's augmentation policies, such as rand-m9-mstd0.5-inc1")
    return name


def _rand_augment(name: str) -> str:
    if not re.fullmatch(r"rand(-[\w.-]*)?", name):
        raise ValueError("must be one of timm's RandAugment policies, such as rand-m7-n4-mstd0.5-inc1")
    return name


@contextmanager
def policy_errors(name: str | None) -> Iterator[None]:
    """Turn what timm raises for an unknown policy `name` into an error of `auto_augment`.

    Raises:
        InputError: timm does not know the policy.
    """
    try:
        yield
    except (AssertionError, KeyError, ValueError) as error:
        if name is None:
            raise
        raise InputError(f"augmentation.auto_augment = {name!r}: timm does not know it ({error})") from None


FactorRange = Annotated[tuple[Factor, Factor], _Check(_ascending)]
"""Lower and upper bound of a random factor."""

AreaRange = Annotated[tuple[PositiveFraction, PositiveFraction], _Check(_ascending)]
"""Lower and upper bound of a random share of a picture's area."""

Count = Annotated[int, Ge(1), Le(100)]
MaskLength = Annotated[int, Ge(0), Le(1_000_000)]

_FORBID_EXTRA: dict[str, object] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class ImageAugmentation:
    """Random resized crop, flip, colors and random erasing of an image (timm's training transform)."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA
    ADDED: ClassVar[Mapping[str, object]] = {"backend": "pil"}
    """Settings that came later: files store them if they differ from this; earlier results stay valid."""

    scale: AreaRange = (0.08, 1.0)
    """Bounds of the crop's area as a share of the image's."""
    ratio: FactorRange = (3 / 4, 4 / 3)
    """Bounds of the crop's aspect ratio."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    backend: Literal["pil", "tensor"] = "pil"
    """What resizes the crop: Pillow, as officially, or torch, which is faster and equal up to rounding."""
    hflip: Fraction = 0.5
    """Probability of a horizontal flip."""
    auto_augment: Annotated[str, MaxLen(200), _Check(_policy)] | None = None
    """timm's name of an augmentation policy, such as "rand-m9-mstd0.5-inc1"."""
    color_jitter: Strength | None = None
    """Strength of the color jitter; unused with `auto_augment`, as in timm."""
    reprob: Fraction = 0.0
    """Probability of random erasing, with noise."""


@dataclass(frozen=True, kw_only=True)
class ClipCropAugmentation:
    """VideoMAE's augmentation in pretraining: a multi-scale crop and a flip, the same for all frames."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    crop_scales: Annotated[tuple[PositiveFraction, ...], Len(1)] = (1.0, 0.875, 0.75, 0.66)
    """Sides of the crop as fractions of the shorter side; height and width are two neighbors of the list."""
    hflip: Fraction = 0.0
    """Probability of a horizontal flip."""


@dataclass(frozen=True, kw_only=True)
class ClipAugmentation:
    """VideoMAE's augmentation in finetuning: RandAugment, random resized crop, flip and random erasing.

    All frames of a clip are treated alike.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    scale: AreaRange = (0.08, 1.0)
    """Bounds of the crop's area as a share of the frame's."""
    ratio: FactorRange = (3 / 4, 4 / 3)
    """Bounds of the crop's aspect ratio."""
    hflip: Fraction = 0.5
    """Probability of a horizontal flip."""
    auto_augment: Annotated[str, MaxLen(200), _Check(_rand_augment)] | None = None
    """timm's name of a RandAugment policy, such as "rand-m7-n4-mstd0.5-inc1"."""
    color_jitter: Strength | None = None
    """Strength of a jitter of brightness, contrast and saturation."""
    reprob: Fraction = 0.0
    """Probability of random erasing, with noise."""
    samples: Count = 1
    """Views made of each clip, which is decoded once (repeated augmentation, Hoffer et al. 2020). Neither
    `batch_size` nor the learning rate derived from it counts them."""


@dataclass(frozen=True, kw_only=True)
class MultiView:
    """Test views of a video; their softmax outputs are averaged (VideoMAE)."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    clips: Count = 5
    """Clips, spread over the video's time."""
    crops: Count = 3
    """Square crops of each clip, spread along the longer side of its frames."""


@dataclass(frozen=True, kw_only=True)
class WaveformAugmentation:
    """AudioMAE's augmentation of a waveform, in pretraining and in supervised pretraining."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    roll_magnitude: bool = False
    """Roll the waveform by a random time and multiply it by Beta(10, 10) + 0.5. The official code means to
    roll in time but draws from the number of channels, so that a mono clip never rolls; here it does."""


@dataclass(frozen=True, kw_only=True)
class SpectrogramAugmentation(WaveformAugmentation):
    """AudioMAE's augmentation in finetuning: also mixup and SpecAugment's masks."""

    mixup: Fraction = 0.0
    """Probability that a clip is mixed with another one."""
    time_mask: MaskLength = 0
    """Longest mask along time, in frames; 0 masks nothing."""
    frequency_mask: MaskLength = 0
    """Longest mask along frequency, in mel bins; 0 masks nothing."""


@dataclass(frozen=True, kw_only=True)
class PointcloudAugmentation:
    """Random scale and shift of a normalized object (Point-MAE); each axis has its own factor."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    scale: FactorRange = (2 / 3, 3 / 2)
    """Bounds of the factor."""
    translate: Strength = 0.2
    """Largest shift along each axis."""


@dataclass(frozen=True, kw_only=True)
class ShapeAugmentation(PointcloudAugmentation):
    """Random scale and shift of a normalized shape, for part segmentation (Point-MAE)."""

    scale: FactorRange = (0.8, 1.25)
    """Bounds of the factor."""
    translate: Strength = 0.1
    """Largest shift along each axis."""
    isotropic: bool = True
    """Scale all axes by the same factor."""


@dataclass(frozen=True, kw_only=True)
class DetectionAugmentation:
    """Large-scale jitter: resize the image, take a crop of fixed size, flip."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    scale: FactorRange = (1.0, 1.0)
    """Bounds of the resized image's longer side, in sides of the crop."""
    hflip: Fraction = 0.5
    """Probability of a horizontal flip."""


@dataclass(frozen=True, kw_only=True)
class SegmentationAugmentation:
    """Resize the image, take a crop of fixed size, flip, distort the colors (mmsegmentation)."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    scale: FactorRange = (1.0, 1.0)
    """Bounds of the resized image's shorter side, in sides of the crop."""
    hflip: Fraction = 0.5
    """Probability of a horizontal flip."""
    cat_max_ratio: Fraction = 1.0
    """Largest share of the crop that one class may cover."""
    color_jitter: Strength | None = None
    """Strength of the photometric distortion; 1 is mmsegmentation's."""


@dataclass(frozen=True, kw_only=True)
class TextAugmentation:
    """Windows of text at random places."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    random_offset: bool = True
    """Let a window start at any byte of the file; otherwise windows are back to back."""


@dataclass(frozen=True, kw_only=True)
class NoAugmentation:
    """No augmentation: AV-MNIST and UR-FUNNY are trained on as they are (AGM's released code)."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA


@dataclass(frozen=True, kw_only=True)
class FrameAugmentation:
    """Random resized crop and flip, the same for all frames of a clip; torchvision's defaults (CREMA-D)."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    scale: AreaRange = (0.08, 1.0)
    """Bounds of the crop's area as a share of the frame's."""
    ratio: FactorRange = (3 / 4, 4 / 3)
    """Bounds of the crop's aspect ratio."""
    hflip: Fraction = 0.5
    """Probability of a horizontal flip."""
