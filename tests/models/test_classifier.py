"""Encoder, classifier and exchange of weights, compared with timm."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import nn

from m2pt.errors import InputError
from m2pt.models.classifier import Classifier, build_classifier
from m2pt.models.exchange import load_exchange, to_exchange
from m2pt.models.transformer import build_encoder

BODY = {"dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 4.0}
IMAGE = {"input": {"image_size": 16}, "tokenizer": {"patch_size": 4}, "backbone": BODY}
MODALITIES = {
    "image": (IMAGE, (2, 3, 16, 16), 1, 16),
    "video": (
        {
            "input": {"frames": 4, "stride": 2, "image_size": 8},
            "tokenizer": {"patch_size": 4, "tubelet_size": 2},
            "backbone": BODY,
        },
        (2, 3, 4, 8, 8),
        0,
        8,
    ),
    "audio": (
        {
            "input": {"frames": 16, "mel_bins": 8, "sample_rate": 16000, "mean": -4.0, "std": 4.0},
            "tokenizer": {"patch_size": 4, "stride": 4},
            "backbone": BODY,
        },
        (2, 1, 16, 8),
        1,
        8,
    ),
    "pointcloud": (
        {
            "input": {"points": 40},
            "tokenizer": {"groups": 5, "group_size": 8, "hidden": 4},
            "backbone": BODY,
        },
        (2, 40, 3),
        0,
        5,
    ),
}


def image_classifier(pool: str = "avg", **changed: object) -> Classifier:
    settings = {**IMAGE, "num_classes": 7, "pool": pool, "head": "linear", **changed}
    return build_classifier("image", **settings).eval()


def timm_model(pool: str) -> VisionTransformer:
    model = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=2, num_classes=7, global_pool=pool
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_logits_equal_timms_for_the_same_weights(pool):
    theirs, ours = timm_model(pool), image_classifier(pool)
    load_exchange(ours, theirs.state_dict())
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_taps_equal_timms_intermediate_tokens():
    theirs, ours = timm_model("avg"), image_classifier()
    load_exchange(ours, theirs.state_dict())
    x = torch.randn(3, 3, 16, 16)
    expected = theirs.forward_intermediates(
        x, indices=[0, 2], norm=False, output_fmt="NLC", intermediates_only=True
    )
    for tap, tokens in zip(ours.forward_taps(x, [0, 2]), expected, strict=True):
        torch.testing.assert_close(tap, tokens, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_vit_base_loads_strictly_into_timm_and_back(pool):
    with torch.device("meta"):
        ours = build_classifier(
            "image",
            input={"image_size": 224},
            tokenizer={"patch_size": 16},
            backbone={"dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0},
            num_classes=1000,
            pool=pool,
            head="linear",
        )
        theirs = timm.create_model("vit_base_patch16_224", global_pool=pool)
    theirs.load_state_dict(to_exchange(ours.state_dict()), strict=True)
    load_exchange(ours, theirs.state_dict())
    assert len(theirs.state_dict()) == 152
    shapes = {key: value.shape for key, value in to_exchange(ours.state_dict()).items()}
    assert shapes == {key: value.shape for key, value in theirs.state_dict().items()}


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_modality_gives_normalized_tokens_and_taps(modality):
    settings, shape, prefix, length = MODALITIES[modality]
    encoder = build_encoder(modality, **settings).eval()
    x = torch.randn(shape)
    tokens = encoder(x)
    assert encoder.num_prefix_tokens == prefix
    assert tokens.shape == (2, prefix + length, 16)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, prefix + length), atol=1e-5, rtol=0)
    (last,) = encoder.forward_taps(x, [2])
    torch.testing.assert_close(encoder.norm(last), tokens[:, prefix:])


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_modality_exchanges_its_weights(modality):
    settings, shape, _, _ = MODALITIES[modality]
    source, copy = build_encoder(modality, **settings).eval(), build_encoder(modality, **settings).eval()
    state = to_exchange(source.state_dict())
    assert not any(key.startswith("tokenizer.") for key in state)
    load_exchange(copy, state)
    x = torch.randn(shape)
    assert torch.equal(copy(x), source(x))


def test_blocks_of_all_modalities_have_the_same_keys_and_shapes():
    def blocks(modality: str) -> dict[str, torch.Size]:
        state = build_encoder(modality, **MODALITIES[modality][0]).blocks.state_dict()
        return {key: value.shape for key, value in state.items()}

    assert blocks("video") == blocks("audio") == blocks("pointcloud") == blocks("image")


def test_positions_of_points_are_added_before_every_block():
    encoder = build_encoder("pointcloud", **MODALITIES["pointcloud"][0]).eval()
    tokens = encoder.tokenizer(torch.randn(2, 40, 3))
    x, positions = tokens.values, encoder.tokenizer.pos_embed(tokens.centers)
    for block in encoder.blocks:
        x = block(x + positions)
    torch.testing.assert_close(encoder.encode(tokens.values, tokens.positions), encoder.norm(x))


@pytest.mark.parametrize("given", [None, 1e-12])
@pytest.mark.parametrize("modality", MODALITIES)
def test_layer_norms_have_the_epsilon_of_the_method_or_the_given_one(modality, given):
    settings = MODALITIES[modality][0]
    settings = {**settings, "backbone": {**settings["backbone"], "norm_eps": given}}
    encoder = build_encoder(modality, **settings)
    norms = [module for module in encoder.modules() if isinstance(module, nn.LayerNorm)]
    norms.append(build_classifier(modality, **settings, num_classes=2, pool="avg", head="linear").fc_norm)
    assert len(norms) == 8
    assert {norm.eps for norm in norms} == {given or (1e-5 if modality == "pointcloud" else 1e-6)}


@pytest.mark.parametrize("modality", MODALITIES)
def test_checkpointed_blocks_give_the_same_bits_and_gradients(modality):
    settings, shape, *_ = MODALITIES[modality]
    torch.manual_seed(0)
    model = build_encoder(modality, **settings, drop_path=0.3).train()
    x = torch.randn(shape)
    found = []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        torch.manual_seed(1)
        output = model(x)
        output.square().sum().backward()
        found.append([output, *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_drop_path_rises_linearly():
    encoder = build_encoder("image", **IMAGE, drop_path=0.1)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in encoder.blocks]
    assert rates == pytest.approx([0.0, 0.05, 0.1])


def test_layer_decay_counts_tokenizer_blocks_and_head():
    model = image_classifier()
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(
        model, weight_decay=0.05, layer_decay=0.5, no_weight_decay_list=model.no_weight_decay()
    )
    found = {named[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found["tokenizer.patch_embed.proj.weight"] == (0.5**4, 0.05)
    assert found["tokenizer.pos_embed"] == found["tokenizer.cls_token"] == (0.5**4, 0.0)
    assert found["blocks.0.attn.qkv.weight"] == (0.5**3, 0.05)
    assert found["blocks.2.attn.qkv.bias"] == (0.5, 0.0)
    assert found["fc_norm.weight"] == (1.0, 0.0)
    assert found["head.weight"] == (1.0, 0.05)
    assert len(found) == len(named)


def test_probing_head_standardizes_features_without_parameters():
    model = image_classifier("token", head="batchnorm_linear")
    norm, linear = model.head
    assert norm.eps == 1e-6
    assert not list(norm.parameters())
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert image_classifier().head.weight.std().item() == pytest.approx(2e-5, rel=0.2)


@pytest.mark.parametrize(
    ("modality", "changed", "message"),
    [
        ("video", {"pool": "token"}, "class token"),
        ("image", {"pool": "max"}, "pool 'max'.*avg or token"),
        ("image", {"head": "mlp"}, "head 'mlp'.*linear or batchnorm_linear"),
        ("image", {"backbone": {**BODY, "num_heads": 3}}, "dim 16 .*num_heads 3"),
        ("smell", {}, "modality 'smell'.*image, video, audio, pointcloud, text"),
    ],
)
def test_inconsistent_settings_are_rejected(modality, changed, message):
    settings = MODALITIES.get(modality, MODALITIES["image"])[0]
    with pytest.raises(InputError, match=message):
        build_classifier(
            modality, **{**settings, "num_classes": 7, "pool": "avg", "head": "linear", **changed}
        )


@pytest.mark.parametrize(("pool", "norm_is_loaded"), [("avg", False), ("token", True)])
def test_pretrained_parts_do_not_include_the_head(pool, norm_is_loaded):
    encoder, model = build_encoder("image", **IMAGE), image_classifier(pool)
    nn.init.normal_(encoder.norm.weight)
    head = model.head.weight.clone()
    load_exchange(model, to_exchange(encoder.state_dict()), parts=model.pretrained_parts)
    assert torch.equal(model.blocks[2].mlp.fc2.weight, encoder.blocks[2].mlp.fc2.weight)
    assert torch.equal(model.tokenizer.pos_embed, encoder.tokenizer.pos_embed)
    assert torch.equal(model.head.weight, head)
    own = model.norm.weight if norm_is_loaded else model.fc_norm.weight
    assert torch.equal(own, encoder.norm.weight) == norm_is_loaded


def test_blocks_load_from_any_modality():
    video = build_encoder("video", **MODALITIES["video"][0])
    model = image_classifier()
    load_exchange(model, to_exchange(video.state_dict()), parts=("blocks",))
    assert torch.equal(model.blocks[1].attn.qkv.weight, video.blocks[1].attn.qkv.weight)


def test_positions_are_interpolated_for_larger_images():
    small, large = image_classifier(), image_classifier(input={"image_size": 32})
    load_exchange(large, to_exchange(small.state_dict()))
    assert torch.equal(large.tokenizer.pos_embed[:, 0], small.tokenizer.pos_embed[:, 0])
    assert large(torch.randn(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 32}, r"aux.safetensors: .*32 wide with 3 blocks.*16 wide with 3 blocks"),
        ({"depth": 5}, r"aux.safetensors: .*16 wide with 5 blocks.*16 wide with 3 blocks"),
        ({"mlp_ratio": 2.0}, r"blocks.0.mlp.fc1.weight has shape \(32, 16\).*\(64, 16\)"),
    ],
)
def test_another_backbone_is_rejected_and_changes_nothing(change, message):
    other = build_encoder("image", **{**IMAGE, "backbone": {**BODY, **change}})
    model = image_classifier()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        load_exchange(model, to_exchange(other.state_dict()), parts=("blocks",), source="aux.safetensors")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_missing_and_unknown_keys_are_named():
    model = image_classifier()
    state = to_exchange(model.state_dict())
    state["blocks.0.attn.gate"] = state.pop("blocks.0.attn.proj.bias")
    with pytest.raises(InputError, match=r"lacks blocks.0.attn.proj.bias; has unknown blocks.0.attn.gate"):
        load_exchange(model, state)


def test_a_prefix_of_the_keys_is_named():
    state = {f"model.{key}": value for key, value in to_exchange(image_classifier().state_dict()).items()}
    for parts in (("blocks",), ("tokenizer", "blocks", "norm")):
        with pytest.raises(InputError, match=r"lacks blocks.0.*; its keys begin with 'model\.': remove that"):
            load_exchange(image_classifier(), state, parts=parts)


def test_weights_without_blocks_are_rejected():
    with pytest.raises(InputError, match=r"lacks blocks.0.attn.proj.bias"):
        load_exchange(image_classifier(), {"weight": torch.zeros(1)}, parts=("blocks",))
