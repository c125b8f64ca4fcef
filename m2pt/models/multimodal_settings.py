"""Settings of models of several modalities, with their defaults; see `m2pt.models.multimodal`.

pydantic enforces the ranges and chooses a class by `kind` when a recipe is read. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeAlias

from annotated_types import Len
from pydantic import Field, TypeAdapter, ValidationError

from m2pt.errors import InputError
from m2pt.models.settings import Settings
from m2pt.ranges import Depth, Share, Size

Modality = Annotated[str, Len(1, 100)]

# ---- encoders: from the input of one modality to a vector --------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ResNet18Settings(Settings):
    """A ResNet-18 for planes (C, H, W), or for the frames (C, T, H, W) of a clip."""

    kind: Literal["resnet18"]
    width: Size = 64
    """Channels of the first stage, doubled by each of the other three; 64 in He et al. 2016."""
    stem: Literal["standard", "small"] = "standard"
    """A 7x7 convolution and a max-pool, stride 4 together, as in the AGM code; or, for inputs of few pixels,
    a 3x3 convolution of stride 1 without pool (He et al. 2016, section 4.2)."""


@dataclass(frozen=True, kw_only=True)
class SequenceEncoderSettings(Settings):
    """A masked transformer for padded sequences of vectors; defaults: the AGM code for UR-FUNNY.

    Raises:
        ValueError: `dim` is not a multiple of `num_heads`.
    """

    kind: Literal["sequence"]
    dim: Size = 768
    depth: Depth = 8
    num_heads: Size = 4
    hidden_dim: Size = 2048
    """Hidden units of the MLP of each layer."""
    dropout: Share = 0.1
    output: Literal["first", "mean"] = "first"
    """The features are those of the first time step (the AGM code), or the mean over the steps."""

    def __post_init__(self) -> None:
        _heads_divide(self.dim, self.num_heads)


@dataclass(frozen=True, kw_only=True)
class TransformerSettings(Settings):
    """The tokenizer and transformer of a modality of the catalog, with sizes from its architecture."""

    kind: Literal["transformer"]
    drop_path: Share = 0.0
    """Stochastic depth rate of the last block."""


EncoderSettings: TypeAlias = Annotated[
    ResNet18Settings | SequenceEncoderSettings | TransformerSettings, Field(discriminator="kind")
]

# ---- fusions: from the features of all modalities to logits ------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ConcatSettings(Settings):
    """Late fusion: a linear layer on the concatenated features."""

    kind: Literal["concat"]


@dataclass(frozen=True, kw_only=True)
class SumSettings(Settings):
    """Late fusion: a linear layer for each modality; the logits are summed."""

    kind: Literal["sum"]


@dataclass(frozen=True, kw_only=True)
class MaxoutSettings(Settings):
    """Early fusion: a maxout MLP on the concatenated features; defaults: the AGM code."""

    kind: Literal["maxout"]
    hidden_dims: tuple[Size, Size] = (2048, 1024)
    dropout: Share = 0.3


@dataclass(frozen=True, kw_only=True)
class GatedSettings(Settings):
    """Gated fusion of two modalities; defaults: OGM-GE, `models/fusion_modules.py`."""

    kind: Literal["gated"]
    dim: Size = 512
    gate: Modality | None = None
    """Modality that computes the gate; null: the first."""


@dataclass(frozen=True, kw_only=True)
class FiLMSettings(Settings):
    """Feature-wise linear modulation of one modality by another; default: OGM-GE's `x_film`."""

    kind: Literal["film"]
    condition: Modality | None = None
    """Modality that computes scale and shift; null: the first."""


@dataclass(frozen=True, kw_only=True)
class CrossAttentionSettings(Settings):
    """Attention between the modalities; the AGM code has none, and the defaults are ours.

    Width 512 is that of a ResNet-18's features; 8 heads of 64 units are those of Vaswani et al. 2017.

    Raises:
        ValueError: `dim` is not a multiple of `num_heads`.
    """

    kind: Literal["cross_attention"]
    dim: Size = 512
    num_heads: Size = 8

    def __post_init__(self) -> None:
        _heads_divide(self.dim, self.num_heads)


FusionSettings: TypeAlias = Annotated[
    ConcatSettings | SumSettings | MaxoutSettings | GatedSettings | FiLMSettings | CrossAttentionSettings,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, kw_only=True)
class MultimodalSettings(Settings):
    """Encoders, fusion and initialization of a `MultimodalClassifier`."""

    encoders: Annotated[dict[Modality, EncoderSettings], Len(1)]
    """An encoder for each modality. Their order is that of the features in the fusion."""
    fusion: FusionSettings
    init: Literal["default", "released"] = "default"
    """Initialization of each layer's own code, or that of the AGM code for CREMA-D; see `init_released`."""

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> Self:
        """Build from plain values, as a stored spec has them.

        Raises:
            InputError: a value is invalid; one line for each.
        """
        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            faults = [
                f"model.{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
                for fault in error.errors(include_url=False)
            ]
            raise InputError("\n".join(faults)) from None


def _heads_divide(dim: int, num_heads: int) -> None:
    if dim % num_heads:
        raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
