"""Spectrograms of the miniatures whose sounds are stored as features."""

import numpy as np
from numpy.typing import NDArray

from m2pt.datasets.fbank import mel_filters

WINDOW = 512


def log_spectrogram(sound: NDArray[np.float32], *, rate: int, bins: int, steps: int) -> NDArray[np.float64]:
    """Return mel levels (bins, steps) in dB relative to the loudest, low frequencies first.

    Hann windows of `WINDOW` samples are spread evenly over the sound (samples,), which is at least as long as
    one.
    """
    starts = np.linspace(0, len(sound) - WINDOW, steps).astype(int)
    frames = sound[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames)) ** 2
    energies = power @ mel_filters(bins, rate, WINDOW).numpy()
    levels = 10 * np.log10(np.maximum(energies, 1e-10))
    return (levels - levels.max()).T
