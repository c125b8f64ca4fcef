"""What a checkpoint says of its model beside the weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from m2pt.checkpoints.dialects import TRANSFORMERS
from m2pt.checkpoints.stated import Stated, stated_settings
from m2pt.errors import InputError


def stated(folder: Path, metadata: dict[str, str] | None = None, dialect: str = TRANSFORMERS) -> Stated:
    return stated_settings(folder / "model.safetensors", metadata or {}, dialect)


@pytest.mark.parametrize("kind", ["ViT", "ViTMAE", "VideoMAE", "AST", "DeiT"])
def test_transformers_states_it_beside_its_file(kind: str, tmp_path: Path) -> None:
    config = getattr(transformers, f"{kind}Config")
    config().save_pretrained(tmp_path)
    assert stated(tmp_path) == Stated(num_heads=12, norm_eps=1e-12, activation="gelu")
    config(layer_norm_eps=1e-6, num_attention_heads=6, hidden_act="relu").save_pretrained(tmp_path)
    assert stated(tmp_path) == Stated(num_heads=6, norm_eps=1e-6, activation="relu")
    assert stated(tmp_path, dialect="MAE (pretraining)") == Stated(), "the config.json of another model"


def test_the_encoder_s_part_of_a_larger_model_is_read(tmp_path: Path) -> None:
    vit = transformers.ViTConfig(num_attention_heads=6)
    decoder = transformers.TrOCRConfig(decoder_attention_heads=3)
    both = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, decoder)
    both.save_pretrained(tmp_path)
    assert stated(tmp_path) == Stated(num_heads=6, norm_eps=1e-12, activation="gelu")
    backbone = transformers.Dinov2Config(num_attention_heads=4)
    transformers.DepthAnythingConfig(backbone_config=backbone).save_pretrained(tmp_path)
    assert stated(tmp_path).num_heads == 4


def test_a_wrapped_model_of_timm_states_its_arguments(tmp_path: Path) -> None:
    config = transformers.TimmWrapperConfig(
        architecture="vit_base_patch16_224", model_args={"num_heads": 6}, do_pooling=False
    )
    config.save_pretrained(tmp_path)
    assert stated(tmp_path, dialect="MAE or timm's ViT") == Stated(num_heads=6)


def test_a_file_of_this_project_states_it_itself(tmp_path: Path) -> None:
    transformers.ViTConfig().save_pretrained(tmp_path)
    backbone = {"dim": 16, "num_heads": 2, "norm_eps": 1e-5}
    architecture = {"modality": "image", "backbone": backbone}
    trained = {"spec": json.dumps({"architecture": architecture}), "seed": "0"}
    assert stated(tmp_path, trained) == Stated(num_heads=2, norm_eps=1e-5)
    del backbone["norm_eps"]
    trained = {"spec": json.dumps({"architecture": architecture})}
    assert stated(tmp_path, trained) == Stated(num_heads=2, norm_eps=1e-6), (
        "the norms are those of the method"
    )
    for modality, eps in (("pointcloud", 1e-5), ("unknown", None)):
        trained = {"spec": json.dumps({"architecture": {**architecture, "modality": modality}})}
        assert stated(tmp_path, trained) == Stated(num_heads=2, norm_eps=eps)
    assert stated(tmp_path, {"spec": json.dumps({"architecture": {"convnext": {}}})}) == Stated()
    converted = {"dialect": TRANSFORMERS, **Stated(6, 9.999999974752427e-07, "gelu_new").metadata}
    assert stated(tmp_path, converted) == Stated(6, 9.999999974752427e-07, "gelu_new")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "{", "NaN", "1e-6", "[" * 10**5, "\0", '{"a": 1, "a": Infinity}']
)
def test_a_config_of_another_kind_says_nothing(text: str, tmp_path: Path) -> None:
    assert stated(tmp_path) == Stated()
    (tmp_path / "config.json").write_text(text)
    assert stated(tmp_path) == Stated()
    assert stated(tmp_path, {"spec": text}) == Stated()


@pytest.mark.parametrize(
    "value", ["1e-6", -1.0, 0.0, 0, 2.0, None, True, [1e-6], float("nan"), float("inf"), {}]
)
def test_odd_values_say_nothing(value: Any, tmp_path: Path) -> None:
    given = {
        "layer_norm_eps": value,
        "num_attention_heads": -1 if value == 2.0 else value,
        "hidden_act": [value],
    }
    (tmp_path / "config.json").write_text(json.dumps({**given, "initializer_range": float("inf")}))
    assert stated(tmp_path) == Stated()
    assert stated(tmp_path, {"norm_eps": str(value)}).norm_eps in (None, 1e-6)
    assert stated(tmp_path, {"num_heads": str(value)}).num_heads is None


def test_other_heads_and_another_activation_are_refused() -> None:
    Stated().check_fits(12, "image")
    Stated(num_heads=12, activation="gelu").check_fits(12, "image")
    Stated(activation="gelu_python").check_fits(12, "image")
    with pytest.raises(
        InputError,
        match=r"6 attention heads, but modality pointcloud has 12: set modalities.pointcloud.num_heads: 6",
    ):
        Stated(num_heads=6).check_fits(12, "pointcloud")
    with pytest.raises(InputError, match="its model has the activation relu, but"):
        Stated(activation="relu").check_fits(12, "image")


def test_only_another_epsilon_is_reported() -> None:
    assert Stated().other_norms(1e-6, "image") == {}
    for same in (1e-6, 9.999999974752427e-07):  # the float32 next to it
        assert Stated(norm_eps=same).other_norms(1e-6, "image") == {}
    line = Stated(norm_eps=1.2345678e-7).other_norms(1e-6, "image")["norm_eps"]
    assert line.startswith("1.2345678e-07 in its model, 1e-06 in modality image")
    assert line.endswith("set modalities.image.norm_eps: 1.2345678e-07")
