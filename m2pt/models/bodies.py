"""Models by their architecture, as a spec has it: a transformer, or with `body: convnext` a ConvNeXt."""

from collections.abc import Mapping
from typing import Any

from m2pt.models.classifier import Classifier, build_classifier
from m2pt.models.convolutional import ConvNeXtClassifier, build_convnext
from m2pt.models.transformer import Encoder, build_encoder


def build_body(architecture: Mapping[str, Any]) -> Encoder | ConvNeXtClassifier:
    """Make an encoder, or a ConvNeXt without classifier; both have `blocks`.

    Raises:
        InputError: settings that do not fit each other.
    """
    if architecture.get("body") == "convnext":
        return build_convnext(architecture["modality"], **_convnext(architecture))
    return build_encoder(**architecture)


def build_body_classifier(
    architecture: Mapping[str, Any], *, num_classes: int, **settings: Any
) -> Classifier | ConvNeXtClassifier:
    """Make a classifier; `settings` are those of a recipe's `model`, see `build_classifier`.

    Raises:
        InputError: settings that do not fit each other.
    """
    if architecture.get("body") == "convnext":
        return build_convnext(
            architecture["modality"], num_classes=num_classes, **_convnext(architecture), **settings
        )
    return build_classifier(**architecture, num_classes=num_classes, **settings)


def _convnext(architecture: Mapping[str, Any]) -> dict[str, Any]:
    return {"input": architecture["input"], **architecture["convnext"]}
