"""The weights of a modality that the project does not have are attached."""

from pathlib import Path

import pytest
import torch
from strangers.commands import faults, run

from m2pt.formats.documents import read_yaml
from m2pt.formats.weights import load_weights, save_weights
from m2pt.models.bodies import build_body
from m2pt.models.transformer import build_encoder
from m2pt.plan.plan import Plan

BACKBONE = read_yaml(Path("tests/tiny/config.yaml"))["backbone"]
IMAGE_RECIPE = "tests/tiny/recipes/pretrain_image.yaml"


def test_a_convolutional_file_of_any_modality_is_an_auxiliary(write, tmp_path):
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
    state = build_body({"modality": None, "body": "convnext", "convnext": sizes}).state_dict()
    del state["stem.0.weight"]
    save_weights(tmp_path / "eeg.safetensors", state, {})
    encoders = {
        "eeg": {"file": str(tmp_path / "eeg.safetensors"), "body": "convnext"},
        "start": {"modality": "image", "body": "convnext", "random": True},
    }
    pathway = {"auxiliaries": ["eeg"], "layers": ["mlp.fc1"]}
    finetune = {"imagenet": {"convnext_tune": "tests/tiny/recipes/imagenet_convnext_tune.yaml"}}
    config = write(
        encoders=encoders,
        row={"target_init": "start", "pathway": pathway},
        finetune=finetune,
        convnext={key: list(value) for key, value in sizes.items()},
    )
    run("check", "--config", str(config), "--encoders", "eeg")
    run("import", "eeg", "--seed", "0", "--config", str(config))


@pytest.mark.parametrize("modality", [{"modality": "eeg"}, {}])
def test_a_file_of_any_modality_is_an_auxiliary(write, tmp_path, modality):
    encoder = build_encoder("image", input={"image_size": 8}, tokenizer={"patch_size": 8}, backbone=BACKBONE)
    state = {key: value for key, value in encoder.state_dict().items() if key.startswith("blocks.")}
    save_weights(tmp_path / "eeg.safetensors", state | {"electrodes": torch.zeros(3)}, {})
    eeg = {"file": str(tmp_path / "eeg.safetensors"), **modality}
    config = write(encoders={"eeg": eeg}, row={"target_init": "scratch", "pathway": {"auxiliaries": ["eeg"]}})
    run("check", "--config", str(config), "--encoders", "eeg")
    run("data", "build", "imagenet", "--config", str(config))
    run("import", "eeg", "--seed", "0", "--config", str(config))
    plan = Plan.load(config)
    (name,) = plan.runs
    run("finetune", name, "--seed", "0", "--config", str(config))
    attached, _ = load_weights(plan.run_directory(name, 0) / "attached.safetensors")
    assert "blocks.0.attn.qkv.pathways.eeg.weight" in attached


def test_a_target_starts_from_a_file_of_its_own_modality(write, capsys):
    config = write(encoders={"eeg": {"file": "eeg.pth"}}, row={"target_init": "eeg"})
    said = faults(capsys, config)
    assert (
        "encoders.eeg: targets start from it, so that it needs their modality; give modality: one of" in said
    )


def test_only_a_file_can_do_without_a_modality(write, capsys):
    encoder = {"dataset": "imagenet", "pretrain": IMAGE_RECIPE}
    assert "modality is required" not in faults(capsys, write(encoders={"x": {"modality": "eg", **encoder}}))
    assert "modality is required unless file" in faults(capsys, write(encoders={"x": encoder}))
