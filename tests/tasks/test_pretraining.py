"""Supervised pretraining: the loss of each modality's labels, and what of the classifier becomes a file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from m2pt.build import pretraining
from m2pt.config.architecture import Backbone, ConvNeXt
from m2pt.config.dataset import Dataset
from m2pt.config.recipes import masked_recipe, supervised_recipe, task_recipe
from m2pt.config.strict import validate
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.formats.weights import load_weights, save_weights
from m2pt.models.bodies import build_body_classifier
from m2pt.models.exchange import load_exchange
from m2pt.models.masked_autoencoder import build_masked_autoencoder
from m2pt.models.transformer import build_encoder
from m2pt.pathway import attach
from m2pt.plan.specs import Architecture, DatasetSpec, PretrainingSpec
from m2pt.tasks.pretraining import classifier_encoder, initial_losses

BACKBONE = {"dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
IMAGE = {
    "modality": "image",
    "input": {"image_size": 16},
    "tokenizer": {"patch_size": 8},
    "backbone": BACKBONE,
}
POINTS = {
    "modality": "pointcloud",
    "input": {"points": 30},
    "tokenizer": {"groups": 4, "group_size": 8, "hidden": 4},
    "backbone": BACKBONE,
}
CONVNEXT = {
    "modality": "audio",
    "body": "convnext",
    "input": {"frames": 32, "mel_bins": 32},
    "convnext": {"depths": (1, 1, 1, 1), "dims": (4, 4, 4, 4)},
}


@pytest.mark.parametrize(
    ("architecture", "decoder", "shape"),
    [
        ({**IMAGE, "input": {"image_size": 64}}, {"dim": 128}, (3, 64, 64)),
        (
            {
                "modality": "video",
                "input": {"frames": 4, "stride": 1, "image_size": 64},
                "tokenizer": {"patch_size": 8, "tubelet_size": 2},
                "backbone": BACKBONE,
            },
            {"dim": 96},
            (3, 4, 64, 64),
        ),
        (
            {
                "modality": "audio",
                "input": {"frames": 128, "mel_bins": 64},
                "tokenizer": {"patch_size": 16, "stride": 16},
                "backbone": BACKBONE,
            },
            {"dim": 256, "kind": "windowed"},
            (1, 128, 64),
        ),
    ],
)
def test_masked_autoencoders_start_where_they_are_expected(architecture, decoder, shape):
    settings = {"depth": 2, "num_heads": 4, **decoder}
    losses, expected = [], []
    for seed in range(20):
        torch.manual_seed(seed)
        model = build_masked_autoencoder(**architecture, decoder=settings, mask_ratio=0.75)
        with torch.no_grad():
            losses.append(float(model(torch.randn(2, *shape) * 3 + 1)))
        expected.append(initial_losses(model)["loss"])
    assert sum(losses) / 20 == pytest.approx(sum(expected) / 20, rel=0.03)
    assert losses == pytest.approx(expected, rel=0.2)


def test_no_loss_is_expected_of_point_clouds_nor_of_small_patches():
    settings = {"dim": 16, "depth": 1, "num_heads": 2}
    for architecture in (POINTS, {**IMAGE, "tokenizer": {"patch_size": 4}}):
        assert (
            initial_losses(build_masked_autoencoder(**architecture, decoder=settings, mask_ratio=0.5)) == {}
        )


def test_the_file_of_a_supervised_encoder_is_an_auxiliary(tmp_path):
    model = build_body_classifier(POINTS, num_classes=3, pool="avg", head="linear", drop_path=0.1)
    path = tmp_path / "encoder.safetensors"
    save_weights(path, classifier_encoder(model), {})
    state, _ = load_weights(path)
    assert not any(key.startswith(("head", "fc_norm", "norm")) for key in state)
    auxiliary = build_encoder(**POINTS)
    load_exchange(auxiliary, state, parts=("blocks",), source=str(path))
    assert torch.equal(auxiliary.blocks[1].attn.qkv.weight, model.blocks[1].attn.qkv.weight)
    target = build_encoder(**IMAGE)
    attach(target.blocks, auxiliary.blocks)
    assert torch.equal(target.blocks[0].mlp.fc2.pathways.auxiliary.weight, model.blocks[0].mlp.fc2.weight)


def test_the_file_starts_another_classifier():
    source, target = (
        build_body_classifier(POINTS, num_classes=classes, pool="avg", head="linear") for classes in (3, 7)
    )
    load_exchange(target, classifier_encoder(source), parts=target.pretrained_parts)
    key = "tokenizer.patch_embed.first_conv.0.weight"
    assert torch.equal(target.state_dict()[key], source.state_dict()[key])


def test_a_classifier_of_the_class_token_gives_a_whole_encoder():
    model = build_body_classifier(IMAGE, num_classes=3, pool="token", head="batchnorm_linear")
    nn.init.normal_(model.norm.weight)
    encoder, x = build_encoder(**IMAGE).eval(), torch.randn(2, 3, 16, 16)
    load_exchange(encoder, classifier_encoder(model), parts=("tokenizer", "blocks", "norm"))
    tokens = model.eval().tokenizer(x)
    assert torch.equal(encoder(x), model.encode(tokens.values, tokens.positions))


def test_a_convnext_is_kept_without_its_head():
    model = build_body_classifier(CONVNEXT, num_classes=3)
    expected = {key for key in model.state_dict() if key.startswith(("stem.", "stages."))}
    assert set(classifier_encoder(model)) == expected


def loss_of(architecture, layout, **recipe):
    """The loss of a supervised pretraining on four classes."""
    dataset = DatasetSpec("d", Dataset(layout=layout, num_classes=4, miniature={}))
    sizes = ConvNeXt(**CONVNEXT["convnext"]) if "convnext" in architecture else Backbone(**BACKBONE)
    parts = {key: architecture.get(key) for key in ("input", "tokenizer")}
    training = {"epochs": 1, "batch_size": 2, "lr": 1.0}
    recipe = supervised_recipe(layout)(training=training, model={"pool": "avg", "head": "linear"}, **recipe)
    built = Architecture(architecture["modality"], sizes, **parts)
    return pretraining(PretrainingSpec("supervised", dataset, built, recipe, threads=1))[1]


def test_sounds_have_several_labels():
    torch.manual_seed(0)
    model, inputs = nn.Linear(6, 4), torch.randn(5, 6)
    labels = torch.tensor(np.random.default_rng(0).integers(2, size=(5, 4)), dtype=torch.float32)
    loss, logged = loss_of(CONVNEXT, "audioset")(model, (inputs, labels))
    probability = 1 / (1 + np.exp(-model(inputs).detach().double().numpy()))
    truth = labels.numpy()
    expected = -(truth * np.log(probability) + (1 - truth) * np.log(1 - probability)).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logged == {}


@pytest.mark.parametrize(("architecture", "layout"), [(IMAGE, "imagenet"), (POINTS, "shapenet55")])
def test_everything_else_has_one_label(architecture, layout):
    torch.manual_seed(0)
    model, inputs, labels = nn.Linear(6, 4), torch.randn(5, 6), torch.tensor([0, 3, 1, 1, 2])
    loss, _ = loss_of(architecture, layout, mix={"smoothing": 0.2})(model, (inputs, labels))
    logits = model(inputs).detach().double().numpy()
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = 0.8 * np.eye(4)[labels] + 0.2 / 4
    assert loss.item() == pytest.approx(-(targets * log_probability).sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize("scale", ["mini", "paper"])
@pytest.mark.parametrize(
    ("recipe", "model"),
    [
        ("supervised_pointcloud", supervised_recipe("shapenet55")),
        ("supervised_audio", supervised_recipe("audioset")),
        ("imagenet_convnext_tune", task_recipe("classification", "imagenet")),
        ("pretrain_text", masked_recipe("text")),
    ],
)
def test_recipes_are_valid(scale, recipe, model):
    path = Path(f"config/recipes/{scale}/{recipe}.yaml")
    validate(model, read_yaml(path), str(path))


def test_recipes_say_what_is_wrong():
    training = {"epochs": 2, "batch_size": 4, "lr": 1.0e-3}
    with pytest.raises(InputError, match="recipe: mix: unknown key"):
        validate(supervised_recipe("audioset"), {"training": training, "mix": {"mixup": 0.5}}, "recipe")
    with pytest.raises(InputError, match=r"keep_epochs: epoch 3 is never reached \(epochs: 2\)"):
        validate(supervised_recipe("imagenet"), {"training": training, "keep_epochs": [1, 3]}, "recipe")
    with pytest.raises(InputError, match="layout text has no labels for objective: supervised"):
        supervised_recipe("text")
