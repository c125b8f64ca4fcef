"""ConvNeXt compared with timm's, and pathways between an image and an audio ConvNeXt."""

import copy

import numpy as np
import pytest
import timm
import torch
from timm.models.convnext import ConvNeXt
from torch import nn

from m2pt import pathway
from m2pt.errors import InputError
from m2pt.models.bodies import build_body, build_body_classifier
from m2pt.models.convnext import LAYERS, ConvNeXtClassifier, build_convnext
from m2pt.models.exchange import load_exchange, to_exchange
from m2pt.models.transformer import build_encoder
from m2pt.training.optimizer import parameter_groups
from m2pt.training.settings import TrainingSettings

SIZES = {"depths": (1, 2, 1, 1), "dims": (4, 6, 8, 10)}
INPUTS = {"image": {"image_size": 32}, "audio": {"frames": 64, "mel_bins": 32}}
SHAPES = {"image": (2, 3, 32, 32), "audio": (2, 1, 64, 32)}


def make(modality: str, **changed: object) -> ConvNeXtClassifier:
    """A ConvNeXt in which every weight matters: layer scale starts at 1e-6."""
    model = build_convnext(modality, input=INPUTS[modality], **{**SIZES, "num_classes": 5, **changed})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def architecture(modality: str) -> dict[str, object]:
    return {"modality": modality, "body": "convnext", "input": INPUTS[modality], "convnext": SIZES}


def test_convnext_tiny_has_timms_keys():
    with torch.device("meta"):
        ours = build_convnext(
            "image",
            input={"image_size": 224},
            depths=(3, 3, 9, 3),
            dims=(96, 192, 384, 768),
            num_classes=1000,
        )
        theirs = timm.create_model("convnext_tiny")
    shapes = {key: value.shape for key, value in to_exchange(ours.state_dict()).items()}
    assert shapes == {key: value.shape for key, value in theirs.state_dict().items()}
    assert len(ours.blocks) == 18


def test_logits_equal_timms_for_the_same_weights():
    ours, theirs = make("audio"), ConvNeXt(1, 5, **SIZES).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(SHAPES["audio"])
    assert torch.equal(ours(x), theirs(x))


def test_without_classes_it_returns_features():
    assert build_body(architecture("audio"))(torch.randn(SHAPES["audio"])).shape == (2, 10)
    assert build_body_classifier(architecture("image"), num_classes=3).num_classes == 3


def test_blocks_of_all_stages_are_in_order():
    model = make("image")
    seen = []
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, number=number: seen.append(number))
    model(torch.randn(SHAPES["image"]))
    assert seen == [0, 1, 2, 3, 4]
    assert [block.conv_dw.out_channels for block in model.blocks] == [4, 6, 6, 8, 10]


def test_an_audio_convnext_attaches_to_an_image_convnext_with_another_stem():
    image, audio = make("image"), make("audio")
    assert image.stem[0].weight.shape[1] != audio.stem[0].weight.shape[1]
    plain, x = copy.deepcopy(image), torch.randn(SHAPES["image"])
    pathway.attach(image.blocks, audio.blocks, layers=LAYERS)
    assert torch.equal(image(x), plain(x))
    scales = pathway.scales(image)
    assert len(scales) == 5 * 3
    assert "stages.1.blocks.1.conv_dw.pathways.auxiliary.scale" in scales

    for number, (name, parameter) in enumerate(image.named_parameters()):
        if pathway.is_scale(name):
            nn.init.constant_(parameter, 0.1 + 0.01 * number)
    scales, expected = pathway.scales(image), image(x)
    assert not torch.allclose(expected, plain(x))
    merged = pathway.merge(copy.deepcopy(image))
    torch.testing.assert_close(merged(x), expected, rtol=1e-4, atol=1e-4)
    assert list(merged.state_dict()) == list(plain.state_dict())
    layer = "stages.2.blocks.0.mlp.fc2"
    np.testing.assert_allclose(
        merged.state_dict()[f"{layer}.weight"],
        plain.state_dict()[f"{layer}.weight"].numpy()
        + scales[f"{layer}.pathways.auxiliary.scale"] * audio.state_dict()[f"{layer}.weight"].numpy(),
        rtol=1e-5,
        atol=1e-8,
    )
    ConvNeXt(3, 5, **SIZES).load_state_dict(merged.state_dict())


def test_a_transformer_cannot_be_the_auxiliary_of_a_convnext():
    transformer = build_encoder(
        "image",
        input={"image_size": 32},
        tokenizer={"patch_size": 8},
        backbone={"dim": 4, "depth": 5, "num_heads": 1, "mlp_ratio": 4.0},
    )
    with pytest.raises(pathway.PathwayError, match=r"'conv_dw' of target block 0 .* has no partner in"):
        pathway.attach(make("image").blocks, transformer.blocks, layers=LAYERS)
    with pytest.raises(
        InputError,
        match="the encoder is a transformer, the model is a ConvNeXt; use weights of the same body",
    ):
        load_exchange(make("image"), to_exchange(transformer.state_dict()), parts=("blocks",))
    with pytest.raises(InputError, match="the encoder is a ConvNeXt, the model is a transformer"):
        load_exchange(transformer, make("image").state_dict(), parts=("blocks",))


def test_parts_of_a_file_are_stem_stages_and_head():
    state, model = make("image").state_dict(), make("image")
    before = copy.deepcopy(model.state_dict())
    load_exchange(model, state, parts=model.pretrained_parts)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key.startswith("head.") else state[key])
    load_exchange(model, state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    audio = make("audio")
    load_exchange(audio, state, parts=("blocks",))
    assert torch.equal(audio.blocks[4].conv_dw.weight, model.blocks[4].conv_dw.weight)
    with pytest.raises(
        InputError, match=r"stem.0.weight has shape \(4, 3, 4, 4\), the model's.*\(4, 1, 4, 4\)"
    ):
        load_exchange(audio, state, parts=audio.pretrained_parts)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depths": (1, 2, 1, 2)}, "4 wide with 5 blocks, the model is 4 wide with 6 blocks"),
        ({"dims": (8, 6, 8, 10)}, "4 wide with 5 blocks, the model is 8 wide with 5 blocks"),
        ({"dims": (4, 6, 8, 12)}, r"stages.3.*has shape .*10.*the model's has .*12"),
    ],
)
def test_weights_of_another_convnext_are_rejected(changed, message):
    with pytest.raises(InputError, match=message):
        load_exchange(make("image", **changed), make("image").state_dict(), parts=("blocks",))


def test_layer_decay_counts_the_blocks_and_vectors_do_not_decay():
    model = make("image")
    settings = TrainingSettings(epochs=1, batch_size=1, lr=1.0, weight_decay=0.05, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in parameter_groups(model, settings)
        for parameter in group["params"]
    }
    assert set(found) == set(names.values())
    assert found["head.fc.weight"] == (1.0, 0.05)
    assert found["stages.3.blocks.0.mlp.fc1.weight"] == (0.5, 0.05)
    assert found["stages.3.blocks.0.gamma"] == (0.5, 0.0)
    rates = [found[f"stages.{s}.blocks.{b}.conv_dw.weight"][0] for s, b in ((0, 0), (1, 0), (1, 1), (2, 0))]
    assert rates == sorted(rates) and len(set(rates)) == 4
    assert found["stem.0.weight"][0] < rates[0]


@pytest.mark.parametrize(
    ("modality", "changed", "message"),
    [
        ("video", {}, "image and audio, not video"),
        ("image", {"depths": (1, 1)}, r"depths \[1, 1\] .*give 4 of each"),
        ("image", {"pool": "token"}, "pool avg and head linear, not token and linear"),
        ("image", {"head": "batchnorm_linear"}, "not avg and batchnorm_linear"),
        ("image", {"input": {"image_size": 28}}, "image_size 28 .*at least 32"),
        ("audio", {"input": {"frames": 64, "mel_bins": 16}}, "mel_bins 16 .*at least 32"),
    ],
)
def test_inconsistent_settings_are_rejected(modality, changed, message):
    settings = {"input": INPUTS.get(modality, {}), **SIZES, "num_classes": 5, **changed}
    with pytest.raises(InputError, match=message):
        build_convnext(modality, **settings)
