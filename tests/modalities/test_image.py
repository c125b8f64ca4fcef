"""Image tokens, positions, masks and targets against numpy and timm."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.modalities.image import ImageTokenizer
from m2pt.modalities.positions import sincos_2d
from m2pt.modalities.tokenizer import random_split, take


def patch(image: np.ndarray, index: int, size: int) -> np.ndarray:
    """Patch `index` (row-major) of an image (C, H, W), as rows, columns, channels."""
    row, column = divmod(index, image.shape[2] // size)
    return image[:, row * size : (row + 1) * size, column * size : (column + 1) * size].transpose(1, 2, 0)


def test_sincos_table_is_the_closed_form():
    dim, rows, columns = 16, 3, 5
    table = sincos_2d(dim, (rows, columns)).numpy()
    for row in range(rows):
        for column in range(columns):
            angles = [[p / 10000 ** (i / (dim / 4)) for i in range(dim // 4)] for p in (column, row)]
            expected = [f(a) for half in angles for f in (math.sin, math.cos) for a in half]
            np.testing.assert_allclose(table[row * columns + column], expected, atol=1e-6)


def test_sincos_table_needs_a_multiple_of_four():
    with pytest.raises(InputError, match=r"18.*multiple of 4"):
        sincos_2d(18, (2, 2))


def test_tokens_are_a_linear_map_of_patches():
    tokenizer = ImageTokenizer(8, image_size=12, patch_size=4)
    x = torch.randn(2, 3, 12, 12)
    tokens = tokenizer(x)
    weight = tokenizer.patch_embed.proj.weight.detach().numpy().transpose(0, 2, 3, 1).reshape(8, -1)
    bias = tokenizer.patch_embed.proj.bias.detach().numpy()
    for index in range(9):
        expected = weight @ patch(x[1].numpy(), index, 4).ravel() + bias
        np.testing.assert_allclose(tokens.values[1, index].detach(), expected, atol=1e-5)


def test_positions_are_trained_unless_fixed_and_the_class_token_starts_without():
    tokenizer = ImageTokenizer(8, image_size=12, patch_size=4)
    assert tokenizer.pos_embed.requires_grad
    assert not tokenizer.pos_embed[:, 0].any()
    assert torch.equal(tokenizer.prefix(), tokenizer.cls_token)
    tokenizer.fix_positions()
    assert not tokenizer.pos_embed.requires_grad
    assert tokenizer.cls_token.requires_grad


def test_target_is_each_masked_patch_standardized_with_unbiased_variance():
    tokenizer = ImageTokenizer(8, image_size=12, patch_size=4)
    x = torch.randn(2, 3, 12, 12) * 3 + 1
    masked = torch.tensor([[8, 0, 4], [1, 2, 7]])
    target = tokenizer.target(x, masked)
    for sample in range(2):
        for place, index in enumerate(masked[sample].tolist()):
            values = patch(x[sample].numpy().astype(np.float64), index, 4).ravel()
            expected = (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-6)
            np.testing.assert_allclose(target[sample, place], expected, atol=1e-5)


def test_49_of_196_patches_are_visible_and_differ_between_samples():
    tokenizer = ImageTokenizer(8, image_size=224, patch_size=16)
    visible, masked = tokenizer.draw_mask(64, 0.75, torch.device("cpu"))
    assert visible.shape == (64, 49)
    assert masked.shape == (64, 147)
    together = torch.cat([visible, masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(196).expand(64, -1))
    assert len({tuple(sorted(row)) for row in visible.tolist()}) == 64


def test_every_token_is_masked_equally_often():
    torch.manual_seed(0)
    _, masked = random_split(20000, 10, 4, torch.device("cpu"))
    frequency = np.bincount(masked.flatten(), minlength=10) / 20000
    np.testing.assert_allclose(frequency, 0.4, atol=5 * math.sqrt(0.4 * 0.6 / 20000))


@pytest.mark.parametrize("ratio", [0.1, 0.9])
def test_masks_of_all_or_no_tokens_are_rejected(ratio):
    tokenizer = ImageTokenizer(8, image_size=8, patch_size=8)
    with pytest.raises(InputError, match="mask_ratio"):
        tokenizer.draw_mask(2, ratio, torch.device("cpu"))


def test_take_picks_per_sample_from_own_or_shared_tokens():
    tokens, shared = torch.randn(3, 5, 2, 4), torch.randn(1, 5, 4)
    index = torch.tensor([[4, 0], [1, 1], [3, 2]])
    expected = np.stack([tokens[b].numpy()[index[b]] for b in range(3)])
    np.testing.assert_array_equal(take(tokens, index), expected)
    np.testing.assert_array_equal(take(shared, index), shared[0].numpy()[index])


@pytest.mark.parametrize("side", [2, 12])
def test_positions_are_interpolated_as_in_mae(side):
    """Bicubic, without the antialiasing that is timm's default."""
    stored = torch.randn(1, 1 + 4 * 4, 16)
    tokenizer = ImageTokenizer(16, image_size=8 * side, patch_size=8)
    adapted = tokenizer.adapt({"pos_embed": stored})["pos_embed"]
    grid = stored[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    expected = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    torch.testing.assert_close(adapted[:, :1], stored[:, :1])
    torch.testing.assert_close(adapted[:, 1:], expected.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("side", [4, 6])
def test_a_table_without_a_row_for_the_class_token_gets_zeros(side):
    """As DeiT III has it, timm's `no_embed_class`."""
    stored = torch.randn(1, 4 * 4, 16)
    tokenizer = ImageTokenizer(16, image_size=8 * side, patch_size=8)
    with_row = torch.cat([torch.zeros(1, 1, 16), stored], dim=1)
    expected = tokenizer.adapt({"pos_embed": with_row})["pos_embed"]
    assert torch.equal(tokenizer.adapt({"pos_embed": stored})["pos_embed"], expected)
    assert expected.shape == (1, 1 + side * side, 16)


@pytest.mark.parametrize("side", [4, 6])
def test_positions_behind_a_distillation_token_are_interpolated_too(side):
    stored = torch.randn(1, 2 + 4 * 4, 16)
    tokens = {name: torch.randn(1, 1, 16) for name in ("cls_token", "dist_token")}
    plain = ImageTokenizer(16, image_size=8 * side, patch_size=8)
    expected = plain.adapt({"pos_embed": stored[:, 1:]})["pos_embed"]
    tokenizer = ImageTokenizer(16, image_size=8 * side, patch_size=8, distillation_token=True)
    adapted = tokenizer.adapt({**tokens, "pos_embed": stored})["pos_embed"]
    assert torch.equal(adapted, torch.cat([stored[:, :1], expected], dim=1))
    tokenizer.load_state_dict({**tokenizer.state_dict(), **tokens, "pos_embed": adapted})
    assert torch.equal(tokenizer.prefix(), torch.cat(list(tokens.values()), dim=1) + stored[:, :2])


def test_positions_of_another_model_are_rejected():
    tokenizer = ImageTokenizer(16, image_size=32, patch_size=8)
    with pytest.raises(InputError, match="square"):
        tokenizer.adapt({"pos_embed": torch.zeros(1, 1 + 6, 16)})


def test_image_size_must_be_whole_patches():
    with pytest.raises(InputError, match=r"image_size 30.*patches of 8"):
        ImageTokenizer(16, image_size=30, patch_size=8)
