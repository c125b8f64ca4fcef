"""AudioMAE's augmentation of sounds: roll, magnitude and mixup of the waveform, masks in the spectrogram.

All random numbers come from NumPy's global generator.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from m2pt.datasets.augmentations import SpectrogramAugmentation, WaveformAugmentation
from m2pt.errors import InputError

Waveform = NDArray[np.float32]


def check_masks(settings: SpectrogramAugmentation, frames: int, mel_bins: int) -> None:
    """Check the masks against the size of a spectrogram.

    Raises:
        InputError: a mask may be longer than its axis.
    """
    for key, longest, size in (
        ("time_mask", settings.time_mask, frames),
        ("frequency_mask", settings.frequency_mask, mel_bins),
    ):
        if longest > size:
            raise InputError(
                f"augmentation.{key} = {longest} exceeds the {size} of the spectrogram; give at most {size}."
            )


def roll_and_scale(waveform: Waveform, settings: WaveformAugmentation) -> Waveform:
    """Roll and scale a waveform (samples,) if `roll_magnitude` is set."""
    if not settings.roll_magnitude:
        return waveform
    rolled = np.roll(waveform, np.random.randint(len(waveform)))
    return rolled * np.float32(np.random.beta(10, 10) + 0.5)


def draw_mixup(settings: SpectrogramAugmentation) -> float | None:
    """Draw the share that a clip keeps when it is mixed, Beta(10, 10); None if it is not to be mixed."""
    return np.random.beta(10, 10) if np.random.random() < settings.mixup else None


def mix(waveform: Waveform, other: Waveform, share: float) -> Waveform:
    """Return `share` of a waveform and 1 - `share` of another, minus the mean of the mixture.

    The mixture is as long as the first: the other is cut, or followed by silence.
    """
    mixture = share * waveform
    length = min(len(waveform), len(other))
    mixture[:length] += (1 - share) * other[:length]
    return mixture - mixture.mean()


def mask(spectrogram: Tensor, settings: SpectrogramAugmentation) -> None:
    """Set a stretch of frames and one of mel bins of a spectrogram (frames, mel_bins) to zero, in place.

    A length is drawn uniformly from 0 up to the longest, then a start among those that fit, both rounded
    down, as by torchaudio's `TimeMasking` and `FrequencyMasking`.
    """
    for axis, longest in enumerate((settings.time_mask, settings.frequency_mask)):
        length = np.random.random() * longest
        start = np.random.random() * (spectrogram.shape[axis] - length)
        spectrogram.narrow(axis, int(start), int(length)).zero_()
