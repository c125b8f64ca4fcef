"""What a published checkpoint says of its model beside the weights."""

import json
from pathlib import Path

import pytest
import transformers

from m2pt.checkpoints.stated import other_norm_eps, stated_norm_eps


@pytest.mark.parametrize("kind", ["ViTConfig", "ViTMAEConfig", "VideoMAEConfig"])
def test_transformers_states_the_epsilon_beside_its_file(kind: str, tmp_path: Path) -> None:
    config = getattr(transformers, kind)
    config().save_pretrained(tmp_path)
    assert stated_norm_eps(tmp_path / "model.safetensors", {}) == 1e-12
    config(layer_norm_eps=1e-6).save_pretrained(tmp_path)
    assert stated_norm_eps(tmp_path / "pytorch_model.bin", {}) == 1e-6


def test_a_converted_file_states_the_epsilon_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"layer_norm_eps": 1e-5}))
    assert stated_norm_eps(tmp_path / "a.safetensors", {"norm_eps": "1e-12"}) == 1e-12
    assert stated_norm_eps(tmp_path / "a.safetensors", {"norm_eps": "small"}) == 1e-5


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[1e-6]", '{"layer_norm_eps": "1e-6"}', '{"layer_norm_eps": -1.0}', "{", "NaN", "1e-6"]
    + [f'{{"layer_norm_eps": {value}}}' for value in ("null", "0.0", "true", "[1e-6]", "NaN")],
)
def test_another_config_says_nothing(text: str, tmp_path: Path) -> None:
    assert stated_norm_eps(tmp_path / "a.safetensors", {}) is None
    (tmp_path / "config.json").write_text(text)
    assert stated_norm_eps(tmp_path / "a.safetensors", {}) is None


def test_only_another_epsilon_is_reported() -> None:
    assert other_norm_eps(None, 1e-6, "image") == {} == other_norm_eps(1e-6, 1e-6, "image")
    assert "set modalities.image.norm_eps: 1e-12" in other_norm_eps(1e-12, 1e-6, "image")["norm_eps"]
