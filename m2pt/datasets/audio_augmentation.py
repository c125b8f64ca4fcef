"""AudioMAE's augmentation of a sound: turn, magnitude and mixup of the waveform, masks in the spectrogram."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from m2pt.errors import InputError

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Augmentation:
    """What is done to a clip; nothing by default. Everything is drawn from NumPy's global generator.

    roll_magnitude: turn the waveform by a random time and multiply it by Beta(10, 10) + 0.5. The official
        code means to turn it in time but draws from the number of channels, so that a mono clip never turns;
        here it does.
    mixup: probability that a clip is mixed with another one.
    time_mask, frequency_mask: the longest mask, in frames and in mel bins (SpecAugment); 0 masks nothing.
    """

    roll_magnitude: bool = False
    mixup: float = 0.0
    time_mask: int = 0
    frequency_mask: int = 0

    def check_fit(self, frames: int, mel_bins: int) -> None:
        """Check the masks against the size of a spectrogram.

        Raises:
            InputError: a mask may be longer than its axis.
        """
        for key, longest, size in (
            ("time_mask", self.time_mask, frames),
            ("frequency_mask", self.frequency_mask, mel_bins),
        ):
            if longest > size:
                raise InputError(
                    f"augmentation {key} is {longest}, but a spectrogram is {size} long there: "
                    f"choose at most {size}."
                )

    def jitter(self, waveform: Waveform) -> Waveform:
        """Turn and scale a waveform (samples,), if `roll_magnitude` says so."""
        if not self.roll_magnitude:
            return waveform
        turned = np.roll(waveform, np.random.randint(len(waveform)))
        return turned * np.float32(np.random.beta(10, 10) + 0.5)

    def draw_mixup(self) -> float | None:
        """Draw the share that a clip keeps when it is mixed, Beta(10, 10); None if it is not to be mixed."""
        return np.random.beta(10, 10) if np.random.random() < self.mixup else None

    def mask(self, spectrogram: Tensor) -> None:
        """Set a stretch of frames and one of mel bins of a spectrogram (frames, mel_bins) to zero, in place.

        A length is drawn evenly from 0 up to the longest, then a start among those that fit, both rounded
        down, as by torchaudio's `TimeMasking` and `FrequencyMasking`.
        """
        for axis, longest in enumerate((self.time_mask, self.frequency_mask)):
            length = np.random.random() * longest
            start = np.random.random() * (spectrogram.shape[axis] - length)
            spectrogram.narrow(axis, int(start), int(length)).zero_()


def mix(waveform: Waveform, other: Waveform, share: float) -> Waveform:
    """Return `share` of a waveform and 1 - `share` of another, minus the mean of the mixture.

    The mixture is as long as the first: the other is cut, or followed by silence.
    """
    mixture = share * waveform
    length = min(len(waveform), len(other))
    mixture[:length] += (1 - share) * other[:length]
    return mixture - mixture.mean()
