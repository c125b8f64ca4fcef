import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from m2pt.errors import InputError
from m2pt.models.feature_pyramid import SimpleFeaturePyramid, TokenMaps, rescaling
from m2pt.models.mask_rcnn import build_mask_rcnn
from m2pt.models.transformer import Encoder, build_encoder
from m2pt.models.upernet import build_upernet

DEPTH = 4
MASK_RCNN = {"strides": (4, 8), "anchor_sizes": ((8,), (16,), (24,)), "channels": 8, "box_units": (8,)}
UPERNET = {"taps": (0, 1, 2, 3), "channels": 8, "window_stride": 32}


def make_encoder(modality: str = "image", drop_path: float = 0.0) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(
        modality,
        input={"image_size": 32} if modality == "image" else {"frames": 32, "mel_bins": 32},
        tokenizer={"patch_size": 8} if modality == "image" else {"patch_size": 16, "stride": 16},
        backbone={"dim": 16, "depth": DEPTH, "num_heads": 2, "mlp_ratio": 2},
        drop_path=drop_path,
    )


def make_dense(kind: str, *, freeze_backbone: bool) -> nn.Module:
    shared = {"num_classes": 3, "image_size": 32, "freeze_backbone": freeze_backbone}
    if kind == "mask_rcnn":
        return build_mask_rcnn(make_encoder(), **shared, **MASK_RCNN)
    return build_upernet(make_encoder(), **shared, **UPERNET)


def test_every_stride_has_its_resolution_and_the_same_width() -> None:
    pyramid = SimpleFeaturePyramid(make_encoder(), strides=(2, 4, 8, 16), channels=12, extra_level=True)
    levels = pyramid(torch.randn(2, 3, 32, 32))
    assert list(levels) == ["0", "1", "2", "3", "4"]
    assert [tuple(level.shape) for level in levels.values()] == [(2, 12, s, s) for s in (16, 8, 4, 2, 1)]
    assert torch.equal(levels["4"], levels["3"][:, :, ::2, ::2])


def test_tokens_are_arranged_by_row_and_column() -> None:
    encoder, images = make_encoder(), torch.randn(1, 3, 32, 32)
    tokens = encoder.forward_taps(images, [1, 3])
    for tapped, laid_out in zip(tokens, TokenMaps(encoder, [1, 3], frozen=False)(images), strict=True):
        assert laid_out.shape == (1, 16, 4, 4)
        for row in range(4):
            for column in range(4):
                assert torch.equal(laid_out[0, :, row, column], tapped[0, 4 * row + column])


def test_transposed_convolution_with_the_identity_as_kernel_repeats_pixels() -> None:
    layers, width = rescaling(2, 8, 4, shrink=False)
    with torch.no_grad():
        layers[0].weight.copy_(torch.eye(2)[:, :, None, None].expand(2, 2, 2, 2))
        layers[0].bias.zero_()
    image = torch.randn(1, 2, 3, 3)
    assert width == 2
    assert torch.equal(layers(image), image.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_shrinking_halves_the_width_at_every_doubling() -> None:
    layers, width = rescaling(16, 16, 4, shrink=True)
    assert width == 4
    assert layers(torch.randn(1, 16, 2, 2)).shape == (1, 4, 8, 8)
    assert rescaling(16, 8, 8, shrink=True)[1] == 16


def test_coarser_levels_are_maxima() -> None:
    layers, width = rescaling(1, 8, 32, shrink=True)
    assert width == 1
    assert layers(torch.arange(16.0).reshape(1, 1, 4, 4)).tolist() == [[[[15.0]]]]


@pytest.mark.parametrize("kind", ["mask_rcnn", "upernet"])
def test_frozen_encoder_does_not_change(kind: str) -> None:
    model = make_dense(kind, freeze_backbone=True)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert not any("encoder" in name for name in trainable)


def test_frozen_encoder_stays_in_evaluation_mode_and_takes_no_gradient() -> None:
    pyramid = SimpleFeaturePyramid(make_encoder(drop_path=0.9), strides=(8,), channels=4, frozen=True)
    images = torch.randn(4, 3, 32, 32)
    pyramid.eval()
    expected = pyramid(images)["0"]
    pyramid.train()
    assert pyramid.levels.training
    assert not any(module.training for module in pyramid.maps.encoder.modules())
    outputs = pyramid(images)["0"]
    assert torch.equal(outputs, expected)
    outputs.sum().backward()
    assert all(parameter.grad is None for parameter in pyramid.maps.encoder.parameters())
    assert all(parameter.grad is not None for parameter in pyramid.levels.parameters())


def test_single_parameters_of_a_frozen_encoder_can_be_trained() -> None:
    pyramid = SimpleFeaturePyramid(make_encoder(), strides=(8,), channels=4, frozen=True)
    chosen = pyramid.maps.encoder.blocks[1].mlp.fc1.bias.requires_grad_(True)
    pyramid(torch.randn(2, 3, 32, 32))["0"].square().sum().backward()
    assert chosen.grad.abs().sum() > 0
    assert sum(p.grad is not None for p in pyramid.maps.encoder.parameters()) == 1


def test_every_trainable_parameter_gets_a_gradient() -> None:
    pyramid = SimpleFeaturePyramid(make_encoder(), strides=(4, 8), channels=4)
    pyramid.train()
    pyramid(torch.randn(1, 3, 32, 32))["0"].square().sum().backward()
    unused = [
        name
        for name, parameter in pyramid.maps.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert unused == []


@pytest.mark.parametrize("kind", ["mask_rcnn", "upernet"])
def test_layer_decay_counts_embeddings_blocks_and_the_rest(kind: str) -> None:
    model = make_dense(kind, freeze_backbone=False)
    groups = param_groups_layer_decay(
        model, weight_decay=0.1, layer_decay=0.5, no_weight_decay_list=model.no_weight_decay()
    )
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    prefix = "backbone.maps.encoder." if kind == "mask_rcnn" else "maps.encoder."
    for name, parameter in model.named_parameters():
        inside = name.removeprefix(prefix)
        if inside.startswith("norm."):
            assert id(parameter) not in scale
            continue
        if inside == name:
            layer = DEPTH + 1
        else:
            layer = int(inside.split(".")[1]) + 1 if inside.startswith("blocks.") else 0
        assert scale[id(parameter)] == 0.5 ** (DEPTH + 1 - layer), name
        undecayed = parameter.ndim < 2 or inside in ("tokenizer.pos_embed", "tokenizer.cls_token")
        assert decay[id(parameter)] == (0 if undecayed else 0.1), name


@pytest.mark.parametrize("taps", [[], [2, 1], [1, 1], [-1], [0, DEPTH]])
def test_taps_outside_the_encoder_are_rejected(taps: list[int]) -> None:
    with pytest.raises(InputError, match=r"taps.*between 0 and 3"):
        TokenMaps(make_encoder(), taps, frozen=False)


def test_stride_that_is_not_a_power_of_two_is_rejected() -> None:
    with pytest.raises(InputError, match=r"strides: 12 .* 8"):
        SimpleFeaturePyramid(make_encoder(), strides=(4, 12), channels=4)


def test_encoder_of_another_modality_is_rejected() -> None:
    with pytest.raises(InputError, match="images"):
        TokenMaps(make_encoder("audio"), [0], frozen=False)
