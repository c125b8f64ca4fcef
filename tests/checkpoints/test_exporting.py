"""Merged classifiers written for other tools: read by those, with the same logits."""

import functools
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from m2pt.checkpoints import exporting
from m2pt.checkpoints.conversion import convert
from m2pt.checkpoints.exporting import example, export_classifier
from m2pt.errors import InputError, RunError
from m2pt.formats.weights import load_weights
from m2pt.models.classifier import Classifier, build_classifier
from m2pt.models.exchange import load_exchange, to_exchange

BACKBONE = {"dim": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
INPUTS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "image": ({"image_size": 32}, {"patch_size": 8}),
    "audio": ({"frames": 32, "mel_bins": 16}, {"patch_size": 8, "stride": 8}),
    "video": ({"frames": 4, "image_size": 16}, {"patch_size": 8, "tubelet_size": 2}),
    "pointcloud": ({"points": 32}, {"groups": 4, "group_size": 8, "hidden": 4}),
}


def classifier(
    modality: str, pool: str = "avg", norm_eps: float | None = None, **tokenizer: int
) -> Classifier:
    torch.manual_seed(0)
    values, settings = INPUTS[modality]
    model = build_classifier(
        modality,
        input=values,
        tokenizer=settings | tokenizer,
        backbone=BACKBONE | {"norm_eps": norm_eps},
        num_classes=5,
        pool=pool,
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def logits(model: nn.Module) -> tuple[Tensor, Tensor]:
    x = example(model)
    with torch.no_grad():
        return x, model(x)


@pytest.mark.parametrize(("modality", "pool"), [("image", "avg"), ("image", "token"), ("audio", "avg")])
def test_timm_loads_the_state_strictly(modality: str, pool: str, tmp_path: Path) -> None:
    model = classifier(modality, pool)
    usage = export_classifier(model, "timm", tmp_path / "a.safetensors")
    x, expected = logits(model)
    create = usage.partition(", then ")[0]
    plain = eval(create, {"timm": timm}).eval()  # what the user is told to type
    weights, metadata = load_weights(tmp_path / "a.safetensors")
    plain.load_state_dict(weights, strict=True)
    torch.testing.assert_close(plain(x), expected)
    assert metadata == {"num_heads": "2", "norm_eps": "1e-06"}


@pytest.mark.parametrize(("modality", "form"), [("image", "timm"), ("video", "transformers")])
def test_norms_of_another_epsilon_are_exported_with_it(modality: str, form: str, tmp_path: Path) -> None:
    model = classifier(modality, norm_eps=1e-4)
    target = tmp_path / ("a.safetensors" if form == "timm" else "a")
    usage = export_classifier(model, form, target)
    create = usage.partition(", then ")[0]
    made = eval(create, {"timm": timm, "torch": torch, "functools": functools, "transformers": transformers})
    if form == "timm":
        made.load_state_dict(load_file(target), strict=True)
    norms = {name: module.eps for name, module in made.named_modules() if isinstance(module, nn.LayerNorm)}
    assert len(norms) == 5
    assert {eps for name, eps in norms.items() if form == "timm" or name != "fc_norm"} == {1e-4}


def test_official_models_have_their_own_heads(tmp_path: Path) -> None:
    values, settings = INPUTS["image"]
    for heads in (6, 8):
        backbone = {"dim": 384, "depth": 1, "num_heads": heads, "mlp_ratio": 1.0}
        model = build_classifier(
            "image", input=values, tokenizer=settings, backbone=backbone, num_classes=2, pool="avg"
        ).eval()
        if heads == 6:
            export_classifier(model, "official", tmp_path / "a.pth")
            continue
        with pytest.raises(InputError, match="a model of width 384 with 6 heads, but this one has 8"):
            export_classifier(model, "official", tmp_path / "b.pth")


@pytest.mark.parametrize("form", ["transformers", "official"])
def test_a_form_without_a_setting_for_the_epsilon_is_refused(form: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an epsilon of 1e-06, but this model's have 1e-12"):
        export_classifier(classifier("image", norm_eps=1e-12), form, tmp_path / f"a{ENDINGS.get(form, '')}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("modality", "pool"), [("image", "avg"), ("image", "token"), ("audio", "avg")])
def test_transformers_loads_images_and_sounds_through_timm(modality: str, pool: str, tmp_path: Path) -> None:
    model = classifier(modality, pool)
    export_classifier(model, "transformers", tmp_path / "a")
    loaded = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "a").eval()
    x, expected = logits(model)
    torch.testing.assert_close(loaded(x).logits, expected)


def test_transformers_loads_videos_as_videomae(tmp_path: Path) -> None:
    model = classifier("video")
    export_classifier(model, "transformers", tmp_path / "a")
    loaded = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path / "a").eval()
    x, expected = logits(model)
    torch.testing.assert_close(loaded(x.transpose(1, 2)).logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("modality", ["image", "audio", "video"])
def test_onnxruntime_computes_the_same_for_any_batch(modality: str, tmp_path: Path) -> None:
    model = classifier(modality)
    export_classifier(model, "onnx", tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    x, _ = logits(model)
    for inputs in (x, x[:1], torch.cat([x, x, x])):
        (got,) = session.run(None, {"input": inputs.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), model(inputs).detach(), rtol=1e-4, atol=1e-4)


def test_official_files_of_a_class_token_are_read_with_an_option(tmp_path: Path) -> None:
    usage = export_classifier(classifier("image", "token"), "official", tmp_path / "a.pth")
    assert usage.startswith("MAE's main_finetune.py --cls_token --eval")
    state = torch.load(tmp_path / "a.pth", weights_only=True)["model"]
    assert "norm.weight" in state and "fc_norm.weight" not in state


@pytest.mark.parametrize("modality", ["image", "audio", "video"])
def test_official_files_are_in_the_dialect_that_they_are_read_in(modality: str, tmp_path: Path) -> None:
    model = classifier(modality)
    export_classifier(model, "official", tmp_path / "a.pth")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert list(content) == ["model"]
    has_separate_biases = "blocks.0.attn.q_bias" in content["model"]
    assert has_separate_biases == (modality == "video")
    again = classifier(modality)
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    load_exchange(again, convert(load_weights(tmp_path / "a.pth")[0], "a.pth").state)
    x, expected = logits(model)
    torch.testing.assert_close(again(x), expected)


ENDINGS = {"timm": ".safetensors", "official": ".pth", "onnx": ".onnx"}


@pytest.mark.parametrize("form", ENDINGS)
def test_a_target_that_readers_take_for_something_else_is_refused(form: str, tmp_path: Path) -> None:
    for target in (tmp_path / "a", tmp_path / "a.bin", tmp_path / f"folder{ENDINGS[form]}"):
        if target.name.startswith("folder"):
            target.mkdir()
        with pytest.raises(InputError, match=rf"{target}: the {form} form is .* ends in {ENDINGS[form]}"):
            export_classifier(classifier("image"), form, target)
    assert [path.name for path in tmp_path.rglob("*")] == [f"folder{ENDINGS[form]}"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(InputError, match="a is a file, but the transformers form is a folder"):
        export_classifier(classifier("image"), "transformers", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize(
    ("modality", "setting"), [("image", {"distillation_token": True}), ("audio", {"ast": True})]
)
def test_a_distillation_token_is_only_exported_to_onnx(
    modality: str, setting: dict[str, int], tmp_path: Path
) -> None:
    model = classifier(modality, **setting)
    for form in ("timm", "transformers", "official"):
        with pytest.raises(InputError, match="has no distillation token: give --to onnx"):
            export_classifier(model, form, tmp_path / f"a{ENDINGS.get(form, '')}")
    assert list(tmp_path.iterdir()) == []
    export_classifier(model, "onnx", tmp_path / "a.onnx")  # compares the logits


@pytest.mark.parametrize(
    ("model", "form", "words"),
    [
        (("video",), "timm", "takes images and sounds"),
        (("audio", "avg", 4), "timm", "patches without overlap"),
        (("pointcloud",), "onnx", "only classifiers of images, sounds and videos"),
        (("pointcloud",), "official", "only classifiers of images, sounds and videos"),
        (("audio", "token"), "official", "AudioMAE's main_finetune_as.py averages the tokens"),
    ],
)
def test_a_model_without_such_a_form_is_refused(
    model: tuple[Any, ...], form: str, words: str, tmp_path: Path
) -> None:
    modality, pool, *stride = (*model, "avg")[:3] if len(model) == 1 else model
    tokenizer = {"stride": stride[0]} if stride else {}
    target = tmp_path / f"a{ENDINGS[form]}"
    with pytest.raises(InputError, match=words):
        export_classifier(classifier(modality, pool, **tokenizer), form, target)
    assert not list(tmp_path.iterdir())


def test_a_form_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch) -> None:
    model = classifier("image")
    monkeypatch.setattr(exporting, "to_exchange", lambda state: {
        key: value * (1 + ("fc2" in key)) for key, value in to_exchange(state).items()
    })  # fmt: skip
    with pytest.raises(RunError, match="computes other logits"):
        export_classifier(model, "timm", tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InputError, match="pip install transformers"):
        export_classifier(classifier("image"), "transformers", tmp_path / "a")
