"""Video tokens, positions, tubes and targets against numpy."""

import math

import numpy as np
import torch

from m2pt.modalities.positions import sinusoid_1d
from m2pt.modalities.video import VideoTokenizer

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def make() -> VideoTokenizer:
    return VideoTokenizer(8, frames=4, image_size=12, patch_size=4, tubelet_size=2)


def cube(clip: np.ndarray, index: int) -> np.ndarray:
    """Cube `index` of a clip (C, T, H, W) under `make`'s sizes, (C, 2, 4, 4)."""
    time, row, column = np.unravel_index(index, (2, 3, 3))
    return clip[:, 2 * time : 2 * time + 2, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]


def test_sinusoid_table_is_the_closed_form():
    table = sinusoid_1d(6, 5)
    for position in range(5):
        for channel in range(6):
            angle = position / 10000 ** (2 * (channel // 2) / 6)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert math.isclose(table[position, channel], expected, abs_tol=1e-6)


def test_sinusoid_table_of_vit_base_is_rounded_once():
    angles = np.outer(np.arange(1568), 10000.0 ** -(np.arange(0, 768, 2) / 768))
    table = sinusoid_1d(768, 1568).double().numpy()
    np.testing.assert_allclose(table[:, 0::2], np.sin(angles), atol=6e-8)
    np.testing.assert_allclose(table[:, 1::2], np.cos(angles), atol=6e-8)


def test_positions_are_not_in_the_state():
    assert set(make().state_dict()) == {"patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_there_is_no_prefix_token():
    assert make().prefix() is None


def test_tokens_are_a_linear_map_of_cubes():
    tokenizer = make()
    x = torch.randn(2, 3, 4, 12, 12)
    tokens = tokenizer(x).values.detach().numpy()
    weight = tokenizer.patch_embed.proj.weight.detach().numpy().reshape(8, -1)
    bias = tokenizer.patch_embed.proj.bias.detach().numpy()
    for index in range(18):
        expected = weight @ cube(x[1].numpy(), index).ravel() + bias
        np.testing.assert_allclose(tokens[1, index], expected, atol=1e-5)


def test_tubes_are_the_same_in_all_time_steps():
    tokenizer = VideoTokenizer(8, frames=16, image_size=224, patch_size=16, tubelet_size=2)
    visible, masked = tokenizer.draw_mask(4, 0.9, torch.device("cpu"))
    assert visible.shape == (4, 160)
    assert masked.shape == (4, 8 * 176)
    is_visible = np.zeros((4, 1568), dtype=bool)
    np.put_along_axis(is_visible, visible.numpy(), True, axis=1)
    is_masked = np.zeros((4, 1568), dtype=bool)
    np.put_along_axis(is_masked, masked.numpy(), True, axis=1)
    np.testing.assert_array_equal(is_visible, ~is_masked)
    frames = is_visible.reshape(4, 8, 196)
    np.testing.assert_array_equal(frames, np.broadcast_to(frames[:, :1], frames.shape))
    assert not np.array_equal(frames[0], frames[1])


def test_target_is_each_masked_cube_standardized_per_channel_in_pixel_values():
    tokenizer = make()
    x = torch.rand(2, 3, 4, 12, 12, dtype=torch.float64).float()
    x[0, :, :2, :4, :4] = 0.3  # a flat cube, where the place of the small constant shows
    x[0, 0, 0, 0, 0] = 0.3 + 1e-5
    masked = torch.tensor([[17, 0, 4], [1, 9, 7]])
    target = tokenizer.target(x, masked)
    for sample in range(2):
        for place, index in enumerate(masked[sample].tolist()):
            normalized = cube(x[sample].numpy().astype(np.float64), index).reshape(3, -1).T
            pixels = normalized * STD + MEAN
            expected = (pixels - pixels.mean(0)) / (pixels.std(0, ddof=1) + 1e-6)
            np.testing.assert_allclose(
                target[sample, place], expected.ravel(), atol=0.05 if index == 0 else 1e-4
            )
