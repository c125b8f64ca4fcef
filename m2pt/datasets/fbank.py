"""Kaldi's log mel filter bank, as torchaudio's `compliance.kaldi.fbank` gives it to AST and AudioMAE.

Implemented here because of one filter: at 16 kHz the fourth of 128 mel filters is narrower than the distance
between two FFT bins and covers none. Kaldi and kaldi-native-fbank reject such a bank; torchaudio, with which
the published models were trained, gives the filter the floor value. The tests compare every other filter with
kaldi-native-fbank, which is also several times slower on short clips.
"""

import functools

import torch
from torch import Tensor

LOWEST_FREQUENCY = 20.0
PREEMPHASIS = 0.97
FRAME_SECONDS, SHIFT_SECONDS = 0.025, 0.010


def log_mel(waveform: Tensor, *, sample_rate: int, mel_bins: int) -> Tensor:
    """Return the log mel energies (frames, mel_bins) of a waveform (samples,).

    Frames of 25 ms every 10 ms without padding, each minus its mean, pre-emphasized, with a Hann window and
    a power spectrum of the next power of two; no dither and no energy, so that `htk_compat` changes nothing.
    A waveform shorter than one frame gives no frames.
    """
    window, shift = int(sample_rate * FRAME_SECONDS), int(sample_rate * SHIFT_SECONDS)
    if len(waveform) < window:
        return waveform.new_empty(0, mel_bins)
    frames = waveform.unfold(0, window, shift)
    frames = frames - frames.mean(dim=1, keepdim=True)
    frames[:, 1:] -= PREEMPHASIS * frames[:, :-1]
    frames[:, 0] *= 1 - PREEMPHASIS  # Kaldi takes the sample before a frame to be equal to its first one
    frames *= torch.hann_window(window, periodic=False)
    fft_size = 1 << (window - 1).bit_length()
    spectrum = torch.fft.rfft(frames, fft_size)
    power = spectrum.real.square() + spectrum.imag.square()
    energies = power @ mel_filters(mel_bins, sample_rate, fft_size)
    return energies.clamp_min(torch.finfo(torch.float32).eps).log()


@functools.cache
def mel_filters(mel_bins: int, sample_rate: int, fft_size: int) -> Tensor:
    """Return the triangles (fft_size / 2 + 1, mel_bins), linear in mel, 20 Hz to half the sample rate."""
    mel = _mel(torch.arange(fft_size // 2 + 1, dtype=torch.float64) * sample_rate / fft_size)
    low, high = _mel(torch.tensor([LOWEST_FREQUENCY, sample_rate / 2], dtype=torch.float64))
    width = (high - low) / (mel_bins + 1)
    left = low + width * torch.arange(mel_bins)
    rising = (mel[:, None] - left) / width
    return torch.minimum(rising, 2 - rising).clamp_min(0).float()


def _mel(frequency: Tensor) -> Tensor:
    return 1127 * torch.log1p(frequency / 700)
