"""CREMA-D's spectrogram against scipy and against tones whose place is known."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import stft

from m2pt.datasets.spectrogram import log_magnitudes, read_waveform, repeated


def test_it_equals_scipys() -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 66_150).astype(np.float32)
    ours = log_magnitudes(torch.from_numpy(wave), n_fft=512, hop=353)
    _, _, theirs = stft(wave, window="hann", nperseg=512, noverlap=512 - 353, padded=False, boundary="zeros")
    expected = np.log(np.abs(theirs) * 256 + 1e-7)  # scipy divides by the sum of the window
    assert ours.shape == (257, 188)
    np.testing.assert_allclose(ours[:, : expected.shape[1]], expected[:, :188], atol=2e-3)


def test_silence_is_the_floor() -> None:
    assert log_magnitudes(torch.zeros(1000), n_fft=64, hop=32).unique().tolist() == [
        pytest.approx(np.log(1e-7))
    ]


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_a_tone_keeps_its_frequency_at_another_rate(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate), rate)
    wave = read_waveform(tmp_path / "a.wav", 22_050)
    assert len(wave) == 22_050 and wave.dtype == np.float32
    spectrum = log_magnitudes(torch.from_numpy(wave), n_fft=512, hop=353)
    assert spectrum[:, 30].argmax() == round(1000 * 512 / 22_050)


def test_a_sound_is_repeated_cut_and_clipped() -> None:
    wave = np.array([0.5, -2, 3], np.float32)
    assert repeated(wave, 7).tolist() == [0.5, -1, 1, 0.5, -1, 1, 0.5]
    assert repeated(wave, 2).tolist() == [0.5, -1]
