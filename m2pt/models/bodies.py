"""Encoders and classifiers for a spec's architecture: a transformer, or a ConvNeXt for `body: convnext`."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from m2pt.models.classifier import Classifier, build_classifier
from m2pt.models.convnext import ConvNeXtClassifier, build_convnext
from m2pt.models.transformer import Encoder, build_blocks, build_encoder


class Blocks(nn.Module):
    """The blocks of a transformer without tokenizer and norm: the only part of an auxiliary that is used."""

    def __init__(self, dim: int, depth: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.blocks = build_blocks(dim, depth, num_heads, mlp_ratio, drop_path=0.0)


def build_body(architecture: Mapping[str, Any]) -> Encoder | ConvNeXtClassifier | Blocks:
    """Build an encoder, or a ConvNeXt without classifier; both have `blocks`.

    An architecture without `input`, of a modality that may be unknown, gives blocks alone (or a ConvNeXt with
    a stem of one channel).

    Raises:
        InputError: the settings are inconsistent.
    """
    convnext = architecture.get("body") == "convnext"
    if "input" not in architecture:
        if convnext:
            return ConvNeXtClassifier(in_chans=1, num_classes=0, **architecture["convnext"])
        return Blocks(**architecture["backbone"])
    if convnext:
        return build_convnext(architecture["modality"], **_convnext(architecture))
    return build_encoder(**architecture)


def build_body_classifier(
    architecture: Mapping[str, Any], *, num_classes: int, **settings: Any
) -> Classifier | ConvNeXtClassifier:
    """Build a classifier; `settings` are a recipe's `model`, see `build_classifier`.

    Raises:
        InputError: the settings are inconsistent.
    """
    if architecture.get("body") == "convnext":
        return build_convnext(
            architecture["modality"], num_classes=num_classes, **_convnext(architecture), **settings
        )
    return build_classifier(**architecture, num_classes=num_classes, **settings)


def _convnext(architecture: Mapping[str, Any]) -> dict[str, Any]:
    return {"input": architecture["input"], **architecture["convnext"]}
