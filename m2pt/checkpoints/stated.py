"""What a published checkpoint says of its model beside the weights."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from m2pt.errors import InputError
from m2pt.formats.documents import read_json

NORM_EPS = "norm_eps"
"""Metadata of a converted file, and line of a report: the epsilon of the model's LayerNorms."""


def stated_norm_eps(file: Path, metadata: Mapping[str, str]) -> float | None:
    """Return the epsilon of the LayerNorms of a checkpoint's model, or None if nothing says so.

    Args:
        file: the checkpoint. transformers writes `layer_norm_eps` to the config.json in its folder.
        metadata: of the checkpoint; a file that `m2pt import` converted has the epsilon there.
    """
    if NORM_EPS in metadata:
        with suppress(ValueError):
            return float(metadata[NORM_EPS])
    with suppress(InputError):  # there is none, or it is something else
        stated = read_json(file.parent / "config.json")
        eps = stated.get("layer_norm_eps") if isinstance(stated, dict) else None
        if isinstance(eps, float) and eps > 0:
            return eps
    return None


def other_norm_eps(stated: float | None, used: float, modality: str) -> dict[str, str]:
    """Return the line of a report that says how to get the stated epsilon, if it is not the used one."""
    if stated is None or stated == used:
        return {}
    return {
        NORM_EPS: f"the norms of its model have {stated:g}, those of {modality} {used:g}: for the same "
        f"features set modalities.{modality}.norm_eps: {stated:g}"
    }
