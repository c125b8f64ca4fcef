"""The log-magnitude spectrogram of CREMA-D's sounds, as librosa gives it to AGM's released code."""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2pt.datasets.sound import read_sound

FLOOR = 1e-7
"""Added to the magnitudes before the logarithm."""


def read_waveform(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """Return the first channel of a sound file in [-1, 1] at `sample_rate`.

    Raises:
        InputError: as for `m2pt.datasets.sound.read_sound`.
    """
    waveform, rate = read_sound(path)
    if rate != sample_rate:
        from scipy.signal import resample_poly  # imported here: it is slow, and not every dataset needs it

        common = math.gcd(sample_rate, rate)
        waveform = resample_poly(waveform, sample_rate // common, rate // common).astype(np.float32)
    return waveform


def repeated(waveform: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """Return a waveform repeated until it has `samples` samples, cut to them and clipped to [-1, 1].

    The released code repeats a sound three times, which is the same for sounds of at least a second.
    """
    return np.clip(np.resize(waveform, samples), -1, 1)


def log_magnitudes(waveform: Tensor, *, n_fft: int, hop: int) -> Tensor:
    """Return log(|STFT| + 1e-7), (n_fft // 2 + 1, 1 + samples // hop), of a waveform (samples,).

    Periodic Hann windows of `n_fft` samples, centered at 0, hop, 2 hop, ...; the waveform is padded with
    zeros, as by librosa since 0.10.
    """
    transform = torch.stft(
        waveform,
        n_fft,
        hop_length=hop,
        window=torch.hann_window(n_fft),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return transform.abs().add_(FLOOR).log_()
