"""Classifiers of several modalities: encoders and fusion together, their building and initialization."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.models.exchange import load_exchange, to_exchange
from m2pt.models.fusion import ConcatFusion
from m2pt.models.multimodal import MultimodalClassifier, build_multimodal
from m2pt.models.multimodal_settings import MultimodalSettings
from m2pt.models.transformer import build_encoder

BODY = {"dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
ARCHITECTURES = {
    "image": {
        "modality": "image",
        "input": {"image_size": 16},
        "tokenizer": {"patch_size": 8},
        "backbone": BODY,
    },
    "words": {"modality": "text", "input": {"length": 12}, "tokenizer": {}, "backbone": BODY},
    "points": {
        "modality": "pointcloud",
        "input": {"points": 20},
        "tokenizer": {"groups": 4, "group_size": 5, "hidden": 4},
        "backbone": BODY,
    },
}
SHAPES = {"audio": (1, 20, 24), "visual": (3, 2, 24, 24), "sequence": (5, 6), "image": (3, 16, 16)}
ENCODERS: dict[str, Any] = {
    "audio": {"kind": "resnet18", "width": 4},
    "visual": {"kind": "resnet18", "width": 6},
    "sequence": {"kind": "sequence", "dim": 16, "depth": 2, "num_heads": 2, "hidden_dim": 8, "dropout": 0},
    "image": {"kind": "transformer"},
    "words": {"kind": "transformer"},
    "points": {"kind": "transformer"},
}
FUSIONS: list[dict[str, Any]] = [
    {"kind": "concat"},
    {"kind": "sum"},
    {"kind": "maxout", "hidden_dims": (12, 10)},
    {"kind": "gated", "dim": 8},
    {"kind": "film"},
    {"kind": "cross_attention", "dim": 8, "num_heads": 2},
]


def batch(size: int = 3) -> dict[str, Any]:
    return {
        "audio": torch.randn(size, 1, 20, 24),
        "visual": torch.randn(size, 3, 2, 24, 24),
        "sequence": {"values": torch.randn(size, 5, 6), "lengths": torch.tensor([5, 1, 3])[:size]},
        "image": torch.randn(size, 3, 16, 16),
        "words": torch.randint(0, 256, (size, 12)),
        "points": torch.randn(size, 20, 3),
    }


def model_of(*modalities: str, fusion: Any = FUSIONS[0], **changed: Any) -> MultimodalClassifier:
    settings = {"encoders": {name: ENCODERS[name] for name in modalities}, "fusion": fusion, **changed}
    return build_multimodal(settings, num_classes=7, shapes=SHAPES, architectures=ARCHITECTURES)


def inputs_of(model: MultimodalClassifier, size: int = 3) -> dict[str, Any]:
    return {name: batch(size)[name] for name in model.modalities}


@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: fusion["kind"])
def test_gradients_of_every_fusion_reach_both_encoders(fusion: dict[str, Any]) -> None:
    model = model_of("audio", "visual", fusion=fusion)
    logits = model(inputs_of(model))
    assert logits.shape == (3, 7)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 6])).backward()
    for encoder in model.encoders.values():
        assert all(parameter.grad is not None for parameter in encoder.parameters())
        assert encoder.conv1.weight.grad.norm() > 0


def test_gradients_reach_encoders_of_every_kind() -> None:
    model = model_of(*ENCODERS)
    model(inputs_of(model)).square().sum().backward()
    for name, encoder in model.encoders.items():
        missing = [
            key for key, value in encoder.named_parameters() if value.requires_grad and value.grad is None
        ]
        assert not missing, name
        assert sum(value.grad.norm() for value in encoder.parameters() if value.requires_grad) > 0


def test_the_parts_make_the_whole() -> None:
    model = model_of(*ENCODERS).eval()
    assert model.modalities == tuple(ENCODERS)
    inputs = inputs_of(model)
    features = {name: model.encode(name, inputs[name]) for name in model.modalities}
    assert {name: value.shape for name, value in features.items()} == {
        name: (3, model.encoders[name].embed_dim) for name in model.modalities
    }
    assert torch.equal(model.fuse(features), model(inputs))
    joined = torch.cat(list(features.values()), dim=1)
    torch.testing.assert_close(model(inputs), model.fusion.head(joined))


def test_late_fusion_of_encoders_is_additive() -> None:
    model = model_of("audio", "visual").eval().double()
    given = {name: value.double() for name, value in inputs_of(model).items()}
    zeros = {name: torch.zeros_like(value) for name, value in given.items()}

    def logits(*present: str) -> Tensor:
        return model({name: (given if name in present else zeros)[name] for name in given})

    interaction = logits("audio", "visual") - logits("audio") - logits("visual") + logits()
    torch.testing.assert_close(interaction, torch.zeros_like(interaction), atol=1e-12, rtol=0)


def test_without_batch_norm_and_dropout_evaluation_equals_training_to_the_bit() -> None:
    model = model_of("sequence", "image", "words", fusion=FUSIONS[5])
    inputs = inputs_of(model)
    trained = model.train()(inputs)
    with torch.no_grad():
        assert torch.equal(model.eval()(inputs), trained)


def test_one_sample_of_a_batch_is_encoded_as_alone() -> None:
    model = model_of(*ENCODERS).eval()
    inputs = inputs_of(model)
    alone = {
        name: {key: part[:1] for key, part in value.items()} if isinstance(value, dict) else value[:1]
        for name, value in inputs.items()
    }
    torch.testing.assert_close(model(alone), model(inputs)[:1], atol=1e-5, rtol=1e-5)


def test_copies_and_pickles_give_the_same_logits() -> None:
    model = model_of(*ENCODERS).eval()
    inputs = inputs_of(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # our own bytes
        assert torch.equal(twin(inputs), model(inputs))
        assert not {id(value) for value in twin.parameters()} & {id(value) for value in model.parameters()}


def test_a_transformer_loads_a_pretrained_encoder_and_averages_its_tokens() -> None:
    pretrained = build_encoder(**ARCHITECTURES["image"])
    nn.init.normal_(pretrained.tokenizer.cls_token)
    model = model_of("image", "words")
    encoder = model.encoders["image"]
    load_exchange(encoder, to_exchange(pretrained.state_dict()), parts=encoder.pretrained_parts)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model.encode("image", x), pretrained(x)[:, 1:].mean(dim=1))


def test_a_transformer_of_images_takes_gray_ones_and_frames() -> None:
    encoder = model_of("image").encoders["image"]
    gray, frames = torch.randn(2, 1, 16, 16), torch.randn(2, 3, 4, 16, 16)
    torch.testing.assert_close(encoder(gray), encoder(torch.cat([gray] * 3, dim=1)))
    expected = torch.stack([encoder(frames[:, :, step]) for step in range(4)]).mean(dim=0)
    torch.testing.assert_close(encoder(frames), expected)


def test_a_transformer_of_another_width_is_not_loaded() -> None:
    other = build_encoder(**{**ARCHITECTURES["image"], "backbone": {**BODY, "dim": 32}})
    encoder = model_of("image").encoders["image"]
    with pytest.raises(InputError, match=r"v\.safetensors: the encoder is 32 wide"):
        load_exchange(encoder, to_exchange(other.state_dict()), source="v.safetensors")


def test_modalities_are_chosen_and_ordered() -> None:
    settings = MultimodalSettings.from_mapping({"encoders": ENCODERS, "fusion": FUSIONS[0]})
    model = build_multimodal(settings, num_classes=2, shapes=SHAPES, modalities=["visual", "audio"])
    assert model.modalities == model.fusion.modalities == ("visual", "audio")
    alone = build_multimodal(settings, num_classes=2, shapes=SHAPES, modalities=["sequence"])
    assert alone({"sequence": batch()["sequence"]}).shape == (3, 2)


def test_the_released_initialization() -> None:
    model = model_of("audio", "visual", fusion={"kind": "maxout"}, init="released")
    scaled: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            bound = (6 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
            assert module.weight.abs().max().item() <= bound * (1 + 1e-6)
            scaled.append(module.weight.flatten() / bound)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all() and module.bias.eq(0).all()
    assert torch.cat(scaled).std().item() == pytest.approx(3**-0.5, rel=0.01)  # uniform from -1 to 1
    for layer in (model.fusion.hidden[1].linear, model.fusion.hidden[4].linear, model.fusion.head):
        std = (2 / (layer.in_features + layer.out_features)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert (layer.weight / std).pow(4).mean().item() == pytest.approx(3, abs=0.5)
        assert layer.bias.eq(0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs: inputs.pop("audio"), "the inputs lack audio; give exactly audio, visual"),
        (lambda inputs: inputs.update(smell=1), "the inputs have unknown smell; give exactly audio, visual"),
        (
            lambda inputs: inputs.update(audios=inputs.pop("audio")),
            "the inputs lack audio and have unknown audios",
        ),
        (
            lambda inputs: inputs.update(audio=inputs["audio"][:2]),
            "batch sizes of the modalities differ: audio 2, visual 3; give the same samples",
        ),
        (
            lambda inputs: inputs.update(audio=inputs["visual"]),
            r"modality audio: a ResNet-18 of 1 channels cannot encode .*\(3, 3, 2, 24, 24\)",
        ),
    ],
)
def test_unsuitable_inputs_are_rejected(change: Any, message: str) -> None:
    model = model_of("audio", "visual")
    inputs = inputs_of(model)
    change(inputs)
    with pytest.raises(InputError, match=message):
        model(inputs)


def test_unsuitable_features_and_modalities_are_rejected() -> None:
    model = model_of("audio", "sequence")
    with pytest.raises(InputError, match="the features lack sequence; give exactly audio, sequence"):
        model.fuse({"audio": torch.zeros(2, 32)})
    with pytest.raises(InputError, match="there is no modality 'video'; the model has audio, sequence"):
        model.encode("video", torch.zeros(2))
    empty = {"values": torch.zeros(2, 5, 6), "lengths": torch.tensor([5, 0])}
    with pytest.raises(InputError, match="modality sequence: sequence 1 of the batch has length 0"):
        model.encode("sequence", empty)


@pytest.mark.parametrize("name", ["values", "training", "a.b", ""])
def test_names_that_a_module_cannot_have_are_rejected(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be named .*plain word"):
        MultimodalClassifier({name: nn.Linear(2, 2)}, ConcatFusion({"audio": 2}, 2))


def test_a_classifier_has_an_encoder() -> None:
    with pytest.raises(InputError, match="no encoder"):
        MultimodalClassifier({}, ConcatFusion({"audio": 2}, 2))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shapes": {}}, r"modality audio has no shape; encoder resnet18 needs \(C, H, W\)"),
        ({"shapes": {"audio": (1, 8)}}, r"modality audio has the shape \(1, 8\)"),
        (
            {"shapes": {**SHAPES, "sequence": (5,)}, "modalities": ["sequence"]},
            r"modality sequence has the shape \(5,\); encoder sequence needs \(T, D\)",
        ),
        (
            {"architectures": {}, "modalities": ["image"]},
            "modality image: encoder transformer needs an architecture",
        ),
        (
            {"modalities": ["audio", "smell"]},
            "modalities are audio, smell; give one or more, each once, out of audio, vi",
        ),
        ({"modalities": ["audio", "audio"]}, "modalities are audio, audio; give one or more, each once"),
        ({"modalities": []}, r"modalities are \(none\); give one or more, each once, out of audio"),
        ({"settings": {"encoders": ENCODERS, "fusion": {"kind": "gated"}}}, "exactly two modalities"),
        ({"settings": {"encoders": ENCODERS}}, r"model\.fusion: "),
    ],
)
def test_unsuitable_settings_are_rejected(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "settings": {"encoders": ENCODERS, "fusion": FUSIONS[0]},
        "num_classes": 7,
        "shapes": SHAPES,
        "architectures": ARCHITECTURES,
        **changed,
    }
    with pytest.raises(InputError, match=message):
        build_multimodal(**arguments)
