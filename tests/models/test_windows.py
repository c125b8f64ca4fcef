"""Attention in windows with relative positions, against loops over tokens; a backbone keeps its weights."""

import math

import numpy as np
import pytest
import torch
from timm.layers import Attention
from torch import nn

from m2pt.errors import InputError
from m2pt.models.exchange import load_exchange, to_exchange
from m2pt.models.mask_rcnn import build_mask_rcnn
from m2pt.models.transformer import build_encoder
from m2pt.models.windows import GridAttention, attend_on_grid, from_windows, into_windows
from m2pt.pathway import attach, scales

IMAGE = {
    "input": {"image_size": 20},
    "tokenizer": {"patch_size": 4},
    "backbone": {"dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0},
}


def attention(*, grid=(5, 3), window=0, relative_positions=True):
    torch.manual_seed(0)
    made = GridAttention(
        Attention(8, 2, qkv_bias=True), grid=grid, window=window, relative_positions=relative_positions
    )
    for name, parameter in made.named_parameters():
        if name.startswith("rel_pos"):
            nn.init.normal_(parameter)
    return made.double()


def by_hand(layer, tokens, tables):
    """Attention of all tokens of a grid (h, w, D), head by head and pair by pair."""
    height, width, dim = tokens.shape
    q, k, v = (
        (layer.qkv(torch.from_numpy(tokens)).detach().numpy())[..., i * dim : (i + 1) * dim] for i in range(3)
    )
    head = dim // layer.num_heads
    result = np.zeros_like(tokens)
    for number in range(layer.num_heads):
        part = slice(number * head, (number + 1) * head)
        for row, column in np.ndindex(height, width):
            logits = np.zeros((height, width))
            for other in np.ndindex(height, width):
                logits[other] = q[row, column, part] @ k[other][part] / math.sqrt(head)
                if tables:
                    logits[other] += q[row, column, part] @ tables[0][row - other[0] + height - 1]
                    logits[other] += q[row, column, part] @ tables[1][column - other[1] + width - 1]
            weights = np.exp(logits - logits.max())
            result[row, column, part] = np.tensordot(weights / weights.sum(), v[..., part], 2)
    return layer.proj(torch.from_numpy(result)).detach().numpy()


@pytest.mark.parametrize("relative_positions", [True, False])
def test_attention_to_all_tokens(relative_positions):
    layer = attention(relative_positions=relative_positions)
    x = torch.randn(2, 15, 8, dtype=torch.float64)
    tables = [layer.rel_pos_h, layer.rel_pos_w] if relative_positions else []
    tables = [table.detach().numpy() for table in tables]
    for sample, found in zip(x.numpy(), layer(x).detach().numpy(), strict=True):
        np.testing.assert_allclose(found, by_hand(layer, sample.reshape(5, 3, 8), tables).reshape(15, 8))


def test_windows_are_padded_with_zeros_which_take_part():
    layer = attention(window=2)
    x = torch.randn(1, 15, 8, dtype=torch.float64)
    tables = [layer.rel_pos_h.detach().numpy(), layer.rel_pos_w.detach().numpy()]
    padded = np.zeros((6, 4, 8))
    padded[:5, :3] = x.numpy().reshape(5, 3, 8)
    expected = np.zeros_like(padded)
    for row in range(0, 6, 2):
        for column in range(0, 4, 2):
            place = slice(row, row + 2), slice(column, column + 2)
            expected[place] = by_hand(layer, padded[place], tables)
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected[:5, :3].reshape(15, 8))


@pytest.mark.parametrize("grid", [(5, 3), (4, 4), (2, 7)])
def test_windows_are_put_back(grid):
    x = torch.randn(2, *grid, 3)
    windows = into_windows(x, 2)
    assert windows.shape[1:] == (2, 2, 3)
    assert torch.equal(windows[0], x[0, :2, :2])
    assert torch.equal(from_windows(windows, 2, grid), x)


def test_a_backbone_keeps_its_weights_drops_the_class_token_and_takes_pathways():
    torch.manual_seed(0)
    pretrained = build_encoder("image", **IMAGE)
    encoder = build_encoder("image", **IMAGE)
    attend_on_grid(encoder, (5, 5), window=2, global_blocks=[1], relative_positions=True)
    load_exchange(encoder, to_exchange(pretrained.state_dict()), parts=("tokenizer", "blocks"))
    assert torch.equal(encoder.blocks[2].attn.qkv.weight, pretrained.blocks[2].attn.qkv.weight)
    assert not encoder.blocks[2].attn.rel_pos_h.any()
    assert [len(block.attn.rel_pos_h) for block in encoder.blocks] == [3, 9, 3]
    x = torch.randn(2, 3, 20, 20)
    (tokens,) = encoder.forward_taps(x, [2])
    assert tokens.shape == (2, 25, 16)
    with torch.no_grad():
        encoder.tokenizer.cls_token += 1
    assert torch.equal(encoder.forward_taps(x, [2])[0], tokens)
    assert not encoder.tokenizer.cls_token.requires_grad
    attach(encoder.blocks, pretrained.blocks, scale_init=0.1)
    assert len(scales(encoder)) == 12 and not torch.equal(encoder.forward_taps(x, [2])[0], tokens)


def test_blocks_that_are_not_there_are_named():
    with pytest.raises(InputError, match="there is no block 3; they are 0 to 2"):
        attend_on_grid(
            build_encoder("image", **IMAGE), (5, 5), window=2, global_blocks=[1, 3], relative_positions=True
        )


def test_every_parameter_of_a_detector_with_windows_is_trained():
    torch.manual_seed(0)
    model = build_mask_rcnn(
        build_encoder("image", **IMAGE),
        num_classes=3,
        image_size=20,
        freeze_backbone=False,
        window_size=2,
        global_blocks=(2,),
        strides=(4, 8),
        channels=8,
        extra_level=False,
        anchor_sizes=((4,), (8,)),
        box_convs=(8,),
        box_units=(16,),
        mask_convs=(8,),
    )
    predictor, logits = model.roi_heads.box_predictor, model.roi_heads.mask_predictor.mask_fcn_logits
    assert predictor.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.3)
    assert predictor.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.3)
    assert logits.weight.std().item() == pytest.approx(0.001, rel=0.4)
    target = {
        "boxes": torch.tensor([[2.0, 2.0, 12.0, 12.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 20, 20, dtype=torch.uint8),
    }
    losses = model.train()([torch.randn(3, 20, 20)], [target])
    assert losses["loss_classifier"].item() == pytest.approx(math.log(4), rel=0.05)
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
