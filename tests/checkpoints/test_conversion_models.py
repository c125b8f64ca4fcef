"""Weights of models of transformers and timm: converted, they have the features of the model."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from published_checkpoints import (
    DEPTH,
    DIM,
    State,
    audio_encoder,
    image_encoder,
    layer,
    renamed,
    video_encoder,
)
from torch import nn

from m2pt.checkpoints.conversion import convert
from m2pt.errors import InputError
from m2pt.formats.weights import load_weights
from m2pt.models.exchange import load_exchange

SIZES = {
    "hidden_size": DIM,
    "num_attention_heads": 2,
    "num_hidden_layers": DEPTH,
    "intermediate_size": 4 * DIM,
}
IMAGE = {"image_size": 32, "patch_size": 8}
TIMM = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": DIM,
    "depth": DEPTH,
    "num_heads": 2,
    "num_classes": 3,
}
NORMS = pytest.mark.parametrize(("eps", "std"), [(1e-6, 0.1), (1e-12, 0.1), (1e-12, 0.02), (1e-3, 0.02)])
"""MAE's epsilon, the default of transformers and a large one, at weights of some size and at initial ones."""


def saved(model: Any, folder: Path) -> State:
    """Write a model of transformers and read its file."""
    model.save_pretrained(folder)
    return load_weights(folder / "model.safetensors")[0]


def randomized(model: nn.Module, std: float = 0.1) -> Any:
    """Give all parameters random values, the vectors greater ones: transformers starts biases with zeros."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=3 * std if parameter.ndim < 2 else std)
    return model.eval()


@NORMS
@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("head", [False, True])
def test_features_of_a_vit_of_transformers(
    head: bool, in_memory: bool, eps: float, std: float, tmp_path: Path
) -> None:
    config = transformers.ViTConfig(**SIZES, **IMAGE, layer_norm_eps=eps)
    model = transformers.ViTForImageClassification(config) if head else transformers.ViTModel(config)
    body = randomized(model, std).vit if head else randomized(model, std)
    state = model.state_dict() if in_memory else saved(model, tmp_path)
    x = torch.randn(2, 3, 32, 32)
    expected = body(x).last_hidden_state
    encoder = image_encoder(convert(state, "file").state, norm_eps=eps)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)


@NORMS
def test_features_of_a_vitmae_of_transformers(eps: float, std: float, tmp_path: Path) -> None:
    decoder = {f"decoder_{key}": value for key, value in SIZES.items()}
    config = transformers.ViTMAEConfig(**SIZES, **IMAGE, **decoder, mask_ratio=0.0, layer_norm_eps=eps)
    model = randomized(transformers.ViTMAEForPreTraining(config), std)
    state = saved(model, tmp_path)
    x = torch.randn(2, 3, 32, 32)
    expected = model.vit(x, noise=torch.arange(16.0).expand(2, 16)).last_hidden_state
    converted = convert(state, "file")
    assert "decoder of the pretraining" in converted.report["left out"]
    encoder = image_encoder(converted.state, norm_eps=eps)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)


@NORMS
@pytest.mark.parametrize("pretraining", [True, False])
def test_features_of_a_videomae_of_transformers(
    pretraining: bool, eps: float, std: float, tmp_path: Path
) -> None:
    config = transformers.VideoMAEConfig(
        **SIZES, image_size=16, patch_size=8, num_frames=4, layer_norm_eps=eps
    )
    kind = "VideoMAEForPreTraining" if pretraining else "VideoMAEForVideoClassification"
    model = randomized(getattr(transformers, kind)(config), std)
    x = torch.randn(2, 4, 3, 16, 16)
    expected = model.videomae(x).last_hidden_state
    encoder = video_encoder(convert(saved(model, tmp_path), "file").state, norm_eps=eps)
    encoder.norm = nn.Identity()
    torch.testing.assert_close(encoder(x.transpose(1, 2)), expected, rtol=1e-5, atol=1e-5)


@NORMS
@pytest.mark.parametrize("head", [False, True])
def test_features_of_an_ast_of_transformers(head: bool, eps: float, std: float, tmp_path: Path) -> None:
    sizes = {"num_mel_bins": 24, "max_length": 40, "patch_size": 8}
    strides = {"frequency_stride": 6, "time_stride": 6}
    config = transformers.ASTConfig(**SIZES, **sizes, **strides, layer_norm_eps=eps)
    model = transformers.ASTForAudioClassification(config) if head else transformers.ASTModel(config)
    body = randomized(model, std).audio_spectrogram_transformer if head else randomized(model, std)
    encoder = audio_encoder(convert(saved(model, tmp_path), "file").state, norm_eps=eps)
    x = torch.randn(2, 40, 24)
    expected = body(x).last_hidden_state
    assert expected.shape == (2, 2 + 3 * 6, DIM)
    torch.testing.assert_close(encoder(x.unsqueeze(1)), expected, rtol=1e-5, atol=1e-5)


@NORMS
@pytest.mark.parametrize("kind", ["Model", "ForImageClassificationWithTeacher", "ForMaskedImageModeling"])
def test_features_of_a_deit_of_transformers(kind: str, eps: float, std: float, tmp_path: Path) -> None:
    config = transformers.DeiTConfig(**SIZES, **IMAGE, layer_norm_eps=eps)
    model = randomized(getattr(transformers, f"DeiT{kind}")(config), std)
    state = convert(saved(model, tmp_path), "file").state
    encoder = image_encoder(state, norm_eps=eps, distillation_token=True)
    x = torch.randn(2, 3, 32, 32)
    expected = (model if kind == "Model" else model.deit)(x).last_hidden_state
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["AST", "DeiT", "Beit", "Dinov2", "Dinov2WithRegisters"])
def test_other_models_of_transformers_are_auxiliaries(kind: str, tmp_path: Path) -> None:
    sizes = dict(SIZES)
    if kind.startswith("Dinov2"):
        del sizes["intermediate_size"]
    images = {"num_mel_bins": 32, "max_length": 64} if kind == "AST" else IMAGE
    config = getattr(transformers, f"{kind}Config")(**sizes, **images)
    model = randomized(getattr(transformers, f"{kind}Model")(config))
    state = convert(saved(model, tmp_path), "file", blocks_only=True).state
    query = next(
        value for key, value in model.state_dict().items() if key.endswith("0.attention.q_proj.weight")
    )
    assert torch.equal(state["blocks.0.attn.qkv.weight"][:DIM], query)
    load_exchange(image_encoder({}, parts=()), state, parts=("blocks",))
    in_memory = convert(model.state_dict(), "file", blocks_only=True).state
    assert all(torch.equal(value, in_memory[key]) for key, value in state.items() if "norm" not in key)
    if kind == "Dinov2WithRegisters":
        with pytest.raises(InputError, match="none can start from it; as an auxiliary it works"):
            convert(saved(model, tmp_path), "file")


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_a_head_beside_the_encoder_is_found_below_any_prefix(prefix: str) -> None:
    config = transformers.VideoMAEConfig(**SIZES, image_size=16, patch_size=8, num_frames=4, num_labels=3)
    state = randomized(transformers.VideoMAEForVideoClassification(config)).state_dict()
    converted = convert(renamed(state, prefix), "file")
    assert torch.equal(converted.state["head.weight"], state["classifier.weight"])
    assert torch.equal(converted.state["fc_norm.bias"], state["fc_norm.bias"])
    assert converted.report["prefix"] == f"{prefix}videomae. (removed)" and "left out" not in converted.report


def test_features_of_a_deit3_of_timm() -> None:
    torch.manual_seed(0)
    model = timm.create_model("deit3_small_patch16_224", **TIMM).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    encoder = image_encoder(convert(model.state_dict(), "file").state)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), model.forward_features(x), rtol=1e-4, atol=1e-4)


def distilled(**changed: Any) -> Any:
    return randomized(timm.create_model("deit_small_distilled_patch16_224", **TIMM | changed))


def test_features_of_a_distilled_deit_of_timm() -> None:
    model = distilled()
    converted = convert(model.state_dict(), "file")
    assert converted.report["left out"] == "head of another task (2 tensors)"
    encoder = image_encoder(converted.state, distillation_token=True)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder(x), model.forward_features(x), rtol=1e-5, atol=1e-5)


def test_features_of_the_official_ast() -> None:
    """YuanGongND/ast, `src/models/ast_models.py`: a distilled DeiT of timm, saved by DataParallel."""
    model = distilled(img_size=(24, 40), in_chans=1)
    model.patch_embed.proj = randomized(nn.Conv2d(1, DIM, 8, 6))
    model.patch_embed.img_size = None
    model.pos_embed = nn.Parameter(torch.randn(1, 2 + 3 * 6, DIM))
    heads = {**layer("module.mlp_head.0", DIM), **layer("module.mlp_head.1", 5, DIM)}
    state = {**renamed(model.state_dict(), "module.v."), **heads}
    converted = convert(state, "audioset.pth")
    assert converted.report["prefix"] == "module.v. (removed)"
    x = torch.randn(2, 40, 24)
    expected = model.forward_features(x.unsqueeze(1).transpose(2, 3))
    torch.testing.assert_close(audio_encoder(converted.state)(x.unsqueeze(1)), expected, rtol=1e-5, atol=1e-5)


def test_a_distillation_token_is_asked_for_by_name() -> None:
    state = distilled().state_dict()
    with pytest.raises(
        InputError, match="file: it has a distillation token: set distillation_token: true in"
    ):
        image_encoder(convert(state, "file").state)
    del state["dist_token"]
    with pytest.raises(InputError, match="it has no distillation token: set distillation_token: false in"):
        image_encoder(convert(state, "file").state, distillation_token=True)


def test_a_model_without_a_class_token_is_an_auxiliary() -> None:
    for name in (
        "vit_base_patch16_gap_224",
        "vit_base_patch16_siglip_gap_224",
        "vit_base_patch16_siglip_224",
    ):
        state = convert(timm.create_model(name, **TIMM).state_dict(), "file").state
        with pytest.raises(InputError, match=r"file: its model has no class token.*as an auxiliary only"):
            image_encoder(state)
        image_encoder(state, parts=("blocks",))


def test_layer_scale_is_multiplied_into_the_layers_before_it() -> None:
    scaled = randomized(timm.models.VisionTransformer(**TIMM, init_values=0.1))
    plain = timm.models.VisionTransformer(**TIMM).eval()
    plain.load_state_dict(convert(scaled.state_dict(), "file").state)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain(x), scaled(x))
