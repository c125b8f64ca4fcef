"""Spectrogram tokens, masks and targets against numpy."""

import numpy as np
import pytest
import torch

from m2pt.errors import InputError
from m2pt.modalities.audio import AudioTokenizer


def make(stride: int = 4) -> AudioTokenizer:
    return AudioTokenizer(8, frames=16, mel_bins=8, patch_size=4, stride=stride)


@pytest.mark.parametrize(("stride", "grid"), [(16, (64, 8)), (10, (101, 12))])
def test_grid_of_ten_seconds(stride, grid):
    tokenizer = AudioTokenizer(8, frames=1024, mel_bins=128, patch_size=16, stride=stride)
    assert tokenizer.grid == grid
    assert tokenizer(torch.zeros(1, 1, 1024, 128)).values.shape == (1, grid[0] * grid[1], 8)


def test_tokens_run_over_frequency_first():
    tokenizer = make()
    x = torch.randn(2, 1, 16, 8)
    tokens = tokenizer(x).values.detach().numpy()
    weight = tokenizer.patch_embed.proj.weight.detach().numpy().reshape(8, -1)
    bias = tokenizer.patch_embed.proj.bias.detach().numpy()
    for time in range(4):
        for bins in range(2):
            values = x[1, 0, 4 * time : 4 * time + 4, 4 * bins : 4 * bins + 4].numpy().ravel()
            np.testing.assert_allclose(tokens[1, 2 * time + bins], weight @ values + bias, atol=1e-5)


@pytest.mark.parametrize("stride", [4, 2])
def test_target_is_each_masked_patch_standardized(stride):
    tokenizer = make(stride)
    x = torch.randn(2, 1, 16, 8) * 2 - 1
    masked = torch.tensor([[5, 0], [7, 3]])
    target = tokenizer.target(x, masked)
    for sample in range(2):
        for place, index in enumerate(masked[sample].tolist()):
            time, bins = (stride * i for i in divmod(index, tokenizer.grid[1]))
            values = x[sample, 0, time : time + 4, bins : bins + 4].numpy().astype(np.float64).ravel()
            expected = (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-6)
            np.testing.assert_allclose(target[sample, place], expected, atol=1e-5)


def test_positions_are_never_trained():
    assert not make().pos_embed.requires_grad


def test_102_of_512_patches_are_visible():
    tokenizer = AudioTokenizer(8, frames=1024, mel_bins=128, patch_size=16, stride=16)
    visible, masked = tokenizer.draw_mask(3, 0.8, torch.device("cpu"))
    assert visible.shape == (3, 102)
    assert masked.shape == (3, 410)


def test_frames_must_be_whole_patches():
    with pytest.raises(InputError, match="frames 18"):
        AudioTokenizer(8, frames=18, mel_bins=8, patch_size=4, stride=4)
