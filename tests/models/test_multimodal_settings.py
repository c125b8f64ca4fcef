"""Settings of multimodal models: read without torch, validated in a recipe and from plain values."""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from m2pt.config.strict import Strict, validate
from m2pt.errors import InputError
from m2pt.models.multimodal_settings import (
    CrossAttentionSettings,
    MaxoutSettings,
    MultimodalSettings,
    ResNet18Settings,
    SequenceEncoderSettings,
)


class Recipe(Strict):
    """A recipe with nothing but a model."""

    model: MultimodalSettings


AUDIO = {"kind": "resnet18", "width": 8}
MODEL = {
    "encoders": {"visual": {"kind": "resnet18"}, "audio": AUDIO, "text": {"kind": "sequence"}},
    "fusion": {"kind": "maxout", "hidden_dims": [16, 8]},
}


def test_reading_settings_imports_no_torch() -> None:
    script = "import sys, m2pt.models.multimodal_settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_kinds_choose_the_classes_and_the_order_of_encoders_is_kept() -> None:
    settings = validate(Recipe, {"model": MODEL}, "r.yaml").model
    assert list(settings.encoders) == ["visual", "audio", "text"]
    assert settings.encoders["audio"] == ResNet18Settings(kind="resnet18", width=8)
    assert settings.encoders["text"] == SequenceEncoderSettings(kind="sequence", dim=768, depth=8)
    assert settings.fusion == MaxoutSettings(kind="maxout", hidden_dims=(16, 8), dropout=0.3)
    assert settings.init == "default"


def test_a_stored_spec_gives_the_settings_back() -> None:
    settings = validate(Recipe, {"model": MODEL}, "r.yaml").model
    stored = json.loads(json.dumps(asdict(settings)))
    assert MultimodalSettings.from_mapping(stored) == settings


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoders": {}}, r"model\.encoders = \{\}: .*at least 1 item"),
        ({"encoders": {"audio": {"kind": "resnet"}}}, r"model\.encoders\.audio = .*resnet.*'resnet18'"),
        ({"encoders": {"audio": {"width": 8}}}, r"model\.encoders\.audio = .*kind"),
        (
            {"encoders": {"audio": {**AUDIO, "widht": 8}}},
            r"model\.encoders\.audio.*widht: unknown key; did you mean 'width'",
        ),
        ({"encoders": {"audio": {**AUDIO, "width": 0}}}, r"model\.encoders\.audio.*width = 0: must be >= 1"),
        (
            {"encoders": {"text": {"kind": "sequence", "num_heads": 7}}},
            r"model\.encoders\.text.*dim 768 is not a multiple of num_heads 7",
        ),
        ({"fusion": {"kind": "late"}}, r"model\.fusion = .*'late'.*'concat'.*'sum'"),
        ({"fusion": {"kind": "maxout", "dropout": 1}}, r"model\.fusion.*dropout = 1: must be < 1"),
        ({"init": "official"}, r"model\.init = 'official': must be 'default' or 'released'"),
        ({"fusions": {}}, r"model\.fusions: unknown key; did you mean 'fusion'"),
    ],
)
def test_faults_name_key_and_value(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"^r\.yaml: {message}"):
        validate(Recipe, {"model": {**MODEL, **changed}}, "r.yaml")


def test_every_fault_of_plain_values_is_named() -> None:
    faulty = {"encoders": {"audio": {**AUDIO, "width": -1}}, "fusion": {"kind": "gated", "size": 3}}
    with pytest.raises(InputError) as caught:
        MultimodalSettings.from_mapping(faulty)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("model.encoders.audio") and "width" in lines[0]
    assert lines[1].startswith("model.fusion") and "size" in lines[1]


def test_heads_of_cross_attention_divide_its_width() -> None:
    with pytest.raises(ValueError, match="dim 12 is not a multiple of num_heads 8"):
        CrossAttentionSettings(kind="cross_attention", dim=12)
