"""Spectrogram tokens, masks and targets against numpy."""

import numpy as np
import pytest
import torch

from m2pt.errors import InputError
from m2pt.modalities.audio import AudioTokenizer


def make(stride: int = 4, *, ast: bool = False) -> AudioTokenizer:
    return AudioTokenizer(8, frames=16, mel_bins=8, patch_size=4, stride=stride, ast=ast)


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


def test_tokens_of_ast_run_over_time_first_and_its_kernels_are_transposed():
    tokenizer = make(2, ast=True)
    assert tokenizer.grid == (3, 7) and tokenizer.prefix().shape == (1, 2, 8)
    x = torch.randn(2, 1, 16, 8)
    tokens = tokenizer(x)
    weight, bias = tokenizer.patch_embed.proj.weight.flatten(1), tokenizer.patch_embed.proj.bias
    masked = torch.arange(21).expand(2, -1)
    target = tokenizer.target(tokens.source, masked)
    for bins in range(3):
        for time in range(7):
            patch = x[1, 0, 2 * time : 2 * time + 4, 2 * bins : 2 * bins + 4].T.flatten()
            torch.testing.assert_close(tokens.values[1, 7 * bins + time], weight @ patch + bias)
            expected = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            torch.testing.assert_close(target[1, 7 * bins + time], expected)


def test_positions_are_only_trained_in_ast():
    assert not make().pos_embed.requires_grad
    assert make(ast=True).pos_embed.requires_grad, "AST trains them"


def test_102_of_512_patches_are_visible():
    tokenizer = AudioTokenizer(8, frames=1024, mel_bins=128, patch_size=16, stride=16)
    visible, masked = tokenizer.draw_mask(3, 0.8, torch.device("cpu"))
    assert visible.shape == (3, 102)
    assert masked.shape == (3, 410)


def test_frames_must_be_whole_patches():
    with pytest.raises(InputError, match="frames 18"):
        AudioTokenizer(8, frames=18, mel_bins=8, patch_size=4, stride=4)
