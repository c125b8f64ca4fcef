"""A stranger adds a modality with one module and one entry, and reads what is missing."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from strangers.commands import faults, run

from m2pt import catalog
from m2pt.formats.weights import load_weights
from m2pt.plan.plan import Plan

DEPTH = catalog.Modality(
    settings="strangers.depth_maps:DepthMaps", tokenizer="strangers.depth_maps:DepthTokenizer"
)
DEPTH_LAYOUT = catalog.Layout(
    modalities=("depth",),
    labels="class",
    reader="strangers.depth_maps",
    augmentation="strangers.depth_maps:Noise",
)


@pytest.fixture
def depth(monkeypatch):
    monkeypatch.setitem(catalog.MODALITIES, "depth", DEPTH)
    monkeypatch.setitem(catalog.LAYOUTS, "depth_maps", DEPTH_LAYOUT)


def depth_sections(recipe):
    section = {"input": {"image_size": 32}, "tokenizer": {"patch_size": 8}}
    decoder = {"dim": 16, "depth": 1, "num_heads": 2}
    encoder = {"modality": "depth", "dataset": "depth", "pretrain": recipe(mask_ratio=0.5, decoder=decoder)}
    return {
        "modalities": {"depth": section},
        "datasets": {"depth": {"layout": "depth_maps", "num_classes": 2, "miniature": {"seed": 0}}},
        "encoders": {"depth": encoder},
        "row": {"target_init": "scratch", "pathway": {"auxiliaries": ["depth"]}},
    }


def test_a_new_modality_is_pretrained_and_attached(depth, write, recipe, capsys):
    config = write(**depth_sections(recipe))
    run("check", "--config", str(config))
    plan = Plan.load(config)
    (attached,) = plan.runs.values()
    assert attached.spec.stored["inputs"]["depth"]["architecture"]["modality"] == "depth"
    assert attached.spec.stored["inputs"]["depth"]["recipe"]["augmentation"] == {"noise": 0.0}
    run("data", "build", "depth", "--config", str(config))
    run("pretrain", "depth", "--seed", "0", "--config", str(config))
    state, _ = load_weights(plan.encoder_directory("depth", 0) / "encoder.safetensors")
    assert state["patch_embed.proj.weight"].shape == (16, 1, 8, 8)
    run("data", "build", "imagenet", "--config", str(config))
    run("finetune", attached.name, "--config", str(config))
    state, _ = load_weights(plan.run_directory(attached.name, 0) / "attached.safetensors")
    assert "blocks.0.attn.qkv.pathways.depth.weight" in state
    run("plan", "table", "--config", str(config))
    assert "pretrain" in capsys.readouterr().out


def test_a_missing_section_of_the_config_is_named(depth, write, recipe, capsys):
    sections = depth_sections(recipe)
    del sections["modalities"]
    said = faults(capsys, write(**sections))
    assert "encoders.depth: modality depth needs a section modalities.depth; add it." in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": "strangers.depth_maps:DepthMap"}, "has no 'DepthMap'; did you mean 'DepthMaps'?"),
        (
            {"settings": "strangers.dept:DepthMaps"},
            "modality depth: settings: strangers.dept cannot be imported",
        ),
        (
            {"tokenizer": "strangers.depth_maps:Tokens"},
            "modality depth: tokenizer: strangers.depth_maps has no",
        ),
        (
            {"tokenizer": "strangers.depth_maps:Noise"},
            "depth: tokenizer: Noise lacks adapt, build",
        ),
    ],
)
def test_what_a_modality_s_entry_lacks_is_named(depth, write, recipe, capsys, monkeypatch, change, words):
    monkeypatch.setitem(catalog.MODALITIES, "depth", replace(DEPTH, **change))
    assert words in faults(capsys, write(**depth_sections(recipe)))


def test_methods_that_a_tokenizer_lacks_are_named(depth, write, recipe, capsys, monkeypatch):
    from m2pt.modalities.tokenizer import Tokenizer

    module = ModuleType("strangers.incomplete")
    module.DepthTokenizer = type("DepthTokenizer", (Tokenizer,), {"forward": lambda self, x: x})
    monkeypatch.setitem(sys.modules, "strangers.incomplete", module)
    entry = replace(DEPTH, tokenizer="strangers.incomplete:DepthTokenizer")
    monkeypatch.setitem(catalog.MODALITIES, "depth", entry)
    said = faults(capsys, write(**depth_sections(recipe)))
    assert (
        "modality depth: tokenizer: DepthTokenizer lacks build, decoder_positions, draw_mask, target" in said
    )


def test_an_attribute_that_a_tokenizer_does_not_set_is_named(depth, write, recipe, capsys, monkeypatch):
    from strangers import depth_maps

    def forgetful(self, *arguments, **settings):
        build(self, *arguments, **settings)
        del self.target_dim

    build = depth_maps.DepthTokenizer.__init__
    monkeypatch.setattr(depth_maps.DepthTokenizer, "__init__", forgetful)
    said = faults(capsys, write(**depth_sections(recipe)))
    assert "encoder depth: AttributeError: 'DepthTokenizer' object has no attribute 'target_dim' (" in said


def fail(*_, **__):
    raise NotImplementedError("yet")


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    ("method", "found", "words"),
    [
        ("forward", fail, "encoder depth: NotImplementedError: yet ("),
        ("target", fail, "encoder depth: NotImplementedError: yet ("),
        (
            "target",
            lambda self, patches, masked: torch.zeros(*masked.shape, 2, device=masked.device),
            "encoder depth: the model does not take the inputs of depth: RuntimeError: The size of tensor",
        ),
    ],
)
def test_a_tokenizer_that_does_not_do_its_work_is_named(
    depth, write, recipe, capsys, monkeypatch, method, found, words
):
    monkeypatch.setattr(f"strangers.depth_maps.DepthTokenizer.{method}", found)
    assert words in faults(capsys, write(**depth_sections(recipe)))


def test_a_setting_of_a_new_modality_is_named_with_its_path(depth, write, recipe, capsys):
    sections = depth_sections(recipe)
    sections["modalities"]["depth"] = {"input": {"image_size": 0}, "tokenizer": {"patch": 8}}
    said = faults(capsys, write(**sections))
    assert "modalities.depth.input.image_size = 0: must be >= 1." in said
    assert "modalities.depth.tokenizer.patch: unknown key; did you mean 'patch_size'?" in said


def test_an_unknown_modality_of_a_config_is_named(write, capsys):
    said = faults(capsys, write(modalities={"immage": {}}))
    assert "modalities.immage: unknown key; did you mean 'image'?" in said


def test_whatever_a_tokenizer_raises_is_named_with_its_place(write, recipe, capsys, monkeypatch, depth):
    def fail(*_, **__):
        raise ZeroDivisionError("in a stranger's tokenizer")

    monkeypatch.setattr("strangers.depth_maps.DepthTokenizer.build", fail)
    said = faults(capsys, write(**depth_sections(recipe)))
    assert "ZeroDivisionError: in a stranger's tokenizer (" in said and "test_modality.py, line" in said
