"""Input settings of the layouts with several modalities; plain Python, so that a config imports no torch.

The fields are keyword arguments of the layout's reader. The defaults are those of AGM's released code and of
the distributed files. Ranges are enforced where a config is read.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le, Lt

from m2pt.ranges import Size

HeldOut = Annotated[float, Gt(0), Lt(1)]
"""Share of the official training list that is the validation split; see `m2pt.datasets.holdout`."""

HELD_OUT = 0.1

LARGEST_SPECTROGRAM = 1 << 26
"""Most values of a spectrogram, 256 MiB; the released one has 257 x 188."""

_FORBID_EXTRA: dict[str, object] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class AvMnistInput:
    """Sides of the square images and spectrograms in pixels; the reader compares them with the files."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    image_size: Size = 28
    audio_size: Size = 112
    held_out: HeldOut = HELD_OUT


@dataclass(frozen=True, kw_only=True)
class CremaDInput:
    """Frames of a clip and the spectrogram of its sound; the defaults give a spectrogram of 257 x 188.

    Raises:
        ValueError: the sound is shorter than a window of `n_fft` samples, or the spectrogram is too large.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    frames: Annotated[int, Ge(1), Le(1000)] = 1
    """Frames of a sample, spread evenly over the clip; a single one is in the middle."""
    image_size: Size = 224
    """Side of a square frame in pixels."""
    sample_rate: Size = 22_050
    """Hz; sounds at other rates are resampled."""
    seconds: Annotated[float, Gt(0), Le(600)] = 3.0
    """Length of the sound, which is repeated until it is so long and then cut."""
    n_fft: Annotated[int, Ge(2), Le(65_536)] = 512
    """Samples of a Hann window; the spectrogram has n_fft // 2 + 1 frequencies."""
    hop: Size = 353
    """Samples between the centers of two windows."""
    held_out: HeldOut = HELD_OUT

    def __post_init__(self) -> None:
        if self.n_fft > self.samples:
            raise ValueError(
                f"n_fft = {self.n_fft} exceeds the {self.samples} samples of {self.seconds:g} s at "
                f"{self.sample_rate} Hz"
            )
        if self.bins * self.steps > LARGEST_SPECTROGRAM:
            raise ValueError(f"a spectrogram of {self.bins} x {self.steps} values is too large; raise hop")

    @property
    def samples(self) -> int:
        """Samples of the sound."""
        return round(self.seconds * self.sample_rate)

    @property
    def bins(self) -> int:
        """Frequencies of the spectrogram."""
        return self.n_fft // 2 + 1

    @property
    def steps(self) -> int:
        """Windows of the spectrogram, centered at 0, hop, 2 hop, ..."""
        return 1 + self.samples // self.hop


@dataclass(frozen=True, kw_only=True)
class UrFunnyInput:
    """Features per step of each stream, compared with the files, and the longest sequence."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FORBID_EXTRA

    text: Size = 300
    audio: Size = 81
    video: Size = 371
    max_length: Annotated[int, Ge(1), Le(10_000)] | None = None
    """Steps of a sequence; of a longer one the last steps are kept, where the punchline is. None: all."""
