"""What a checkpoint says of its model beside the weights, which do not show it."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from m2pt.checkpoints.dialects import TRANSFORMERS
from m2pt.errors import InputError
from m2pt.formats.documents import LARGEST_RECORD, read_bytes
from m2pt.models.transformer import tokenizer_class

_ACTIVATION = "gelu"
_EXACT = (_ACTIVATION, "gelu_python")
"""Names of the exact GELU in transformers."""

_INNER = ("encoder", "backbone_config", "vision_config", "audio_config")
"""Where a config of transformers has that of its encoder, if it is one of several models."""


class Stated(NamedTuple):
    """Settings of a checkpoint's model; None where nothing says so.

    Attributes:
        num_heads: attention heads of a block.
        norm_eps: epsilon of the LayerNorms.
        activation: of the MLPs, by its name in transformers.
    """

    num_heads: int | None = None
    norm_eps: float | None = None
    activation: str | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """What a converted file keeps of it."""
        return {name: str(value) for name, value in self._asdict().items() if value is not None}

    def check_fits(self, num_heads: int, modality: str) -> None:
        """Check that a target that starts from the checkpoint computes what its model computes.

        Args:
            num_heads: attention heads of the target.
            modality: of the target.

        Raises:
            InputError: it has other heads or another activation.
        """
        if self.num_heads is not None and self.num_heads != num_heads:
            raise InputError(
                f"its model has {self.num_heads} attention heads, but modality {modality} has {num_heads}: "
                f"set modalities.{modality}.num_heads: {self.num_heads}"
            )
        if self.activation is not None and self.activation not in _EXACT:
            raise InputError(
                f"its model has the activation {self.activation}, but targets have {_ACTIVATION}: use it as "
                "an auxiliary only"
            )

    def other_norms(self, norm_eps: float, modality: str) -> dict[str, str]:
        """Return the line of a report that says how to get the stated epsilon, if the target has another."""
        if self.norm_eps is None or math.isclose(self.norm_eps, norm_eps, rel_tol=1e-6):
            return {}
        return {
            "norm_eps": f"{self.norm_eps} in its model, {norm_eps} in modality {modality}: for the same "
            f"features set modalities.{modality}.norm_eps: {self.norm_eps}"
        }


def stated_settings(file: Path, metadata: Mapping[str, str], dialect: str) -> Stated:
    """Return what is known of a checkpoint's model beside its weights.

    A file of this project, trained, exported or converted, has it in its metadata. transformers writes it to
    the config.json in the folder of its file, also for the models of timm that it wraps.

    Args:
        file: the checkpoint.
        metadata: of the file.
        dialect: name of the dialect of its keys; the config.json beside another than one of transformers may
            be that of another model.
    """
    if "spec" in metadata:
        return _of_spec(_mapping(metadata["spec"], "architecture"))
    if set(metadata) & set(Stated._fields):
        parsed = {name: _value(metadata[name]) for name in Stated._fields if name in metadata}
        return _stated(parsed, *Stated._fields)
    with suppress(InputError):  # there is none
        config = _mapping(read_bytes(file.parent / "config.json", limit=LARGEST_RECORD))
        if dialect == TRANSFORMERS:
            return _of_transformers(config)
        if "architecture" in config and isinstance(config.get("model_args"), dict):
            return _stated(config["model_args"], "num_heads", "", "")
    return Stated()


def _of_spec(architecture: Mapping[str, Any]) -> Stated:
    """Return what the stored architecture of a file of this project says."""
    given = architecture.get("backbone")
    if not isinstance(given, dict):
        return Stated()
    method = {}
    with suppress(InputError):  # a modality that is not in the catalog
        method["norm_eps"] = tokenizer_class(str(architecture.get("modality"))).norm_eps
    return _stated({**method, **given}, "num_heads", "norm_eps", "")


def _of_transformers(config: Mapping[str, Any]) -> Stated:
    inner = (config[name] for name in _INNER if isinstance(config.get(name), dict))
    for each in (config, *inner):
        if "num_attention_heads" in each:
            return _stated(each, "num_attention_heads", "layer_norm_eps", "hidden_act")
    return Stated()


def _mapping(content: str | bytes, *path: str) -> Mapping[str, Any]:
    """Return the object in a JSON text at a path; an empty one if it has none."""
    found: Any = {}
    with suppress(ValueError, RecursionError):
        found = json.loads(content)
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _value(text: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return text


def _stated(given: Mapping[str, Any], heads: str, eps: str, activation: str) -> Stated:
    """Return the settings of these names, those of another type or out of range left out."""
    count, epsilon, name = given.get(heads), given.get(eps), given.get(activation)
    return Stated(
        num_heads=count if type(count) is int and count > 0 else None,
        norm_eps=epsilon if isinstance(epsilon, float) and 0 < epsilon <= 1 else None,
        activation=name if isinstance(name, str) else None,
    )
