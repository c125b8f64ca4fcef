"""A classifier of several modalities: an encoder for each, and a fusion of their features."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from m2pt import catalog
from m2pt.errors import InputError, listed
from m2pt.modalities.tokenizer import Tokenizer
from m2pt.models.fusion import (
    ConcatFusion,
    CrossAttentionFusion,
    FiLMFusion,
    GatedFusion,
    MaxoutFusion,
    SumFusion,
)
from m2pt.models.multimodal_settings import (
    EncoderSettings,
    FusionSettings,
    MultimodalSettings,
    ResNet18Settings,
    SequenceEncoderSettings,
)
from m2pt.models.resnet import ResNet18
from m2pt.models.sequence_encoder import SequenceEncoder
from m2pt.models.transformer import Encoder, build_tokenizer

FUSIONS: Mapping[str, type[nn.Module]] = {
    "concat": ConcatFusion,
    "sum": SumFusion,
    "maxout": MaxoutFusion,
    "gated": GatedFusion,
    "film": FiLMFusion,
    "cross_attention": CrossAttentionFusion,
}
"""Fusions by the `kind` of their settings."""


class MultimodalClassifier(nn.Module):
    """Encoders by modality, and a fusion from their features to logits.

    Each modality's parameters are `encoders[modality].parameters()`, and `model(inputs)` is
    `model.fuse({name: model.encode(name, inputs[name]) for name in model.modalities})`.

    Args:
        encoders: modules from an input of their modality to features (B, ...).
        fusion: module from features by modality to logits (B, num_classes).
        num_classes: number of classes, for further heads on the features.

    Raises:
        InputError: there is no encoder, or a modality cannot have this name.
    """

    def __init__(
        self, encoders: Mapping[str, nn.Module], fusion: nn.Module, num_classes: int | None = None
    ) -> None:
        super().__init__()
        if not encoders:
            raise InputError("a multimodal classifier has no encoder; give one for each modality")
        self.encoders = nn.ModuleDict()
        for name, encoder in encoders.items():
            if not name.isidentifier() or hasattr(self.encoders, name):
                raise InputError(f"a modality cannot be named {name!r}; choose a plain word such as 'audio'")
            self.encoders[name] = encoder
        self.fusion = fusion
        self.num_classes = num_classes

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of the encoders."""
        return tuple(self.encoders)

    def encode(self, modality: str, input: Any) -> Tensor:
        """Return the features of one modality.

        Raises:
            InputError: there is no such modality, or its encoder rejects the input.
        """
        if modality not in self.encoders:
            raise InputError(f"there is no modality {modality!r}; the model has {listed(self.modalities)}")
        try:
            return self.encoders[modality](input)
        except InputError as error:
            raise InputError(f"modality {modality}: {error}") from None

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (B, num_classes) of the features of all modalities.

        Raises:
            InputError: a modality is missing or unknown, or the batch sizes differ.
        """
        self._check_names("features", features)
        sizes = {name: len(features[name]) for name in self.modalities}
        if len(set(sizes.values())) > 1:
            held = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise InputError(
                f"the batch sizes of the modalities differ: {held}; give the same samples of each modality"
            )
        return self.fusion(features)

    def forward(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return logits (B, num_classes) of inputs by modality.

        Raises:
            InputError: a modality is missing or unknown, the batch sizes differ, or an encoder rejects its
                input.
        """
        self._check_names("inputs", inputs)
        return self.fuse({name: self.encode(name, inputs[name]) for name in self.modalities})

    def _check_names(self, what: str, given: Iterable[str]) -> None:
        names = set(given)
        missing = [name for name in self.modalities if name not in names]
        unknown = sorted(names - set(self.modalities))
        if missing or unknown:
            faults = [f"lack {listed(missing)}"] if missing else []
            faults += [f"have unknown {listed(unknown)}"] if unknown else []
            raise InputError(f"the {what} {' and '.join(faults)}; give exactly {listed(self.modalities)}")


class PooledEncoder(Encoder):
    """An `Encoder` that returns the mean of its normalized tokens, without the class token.

    Weights in the exchange format load as into any encoder:
    `load_exchange(encoder, state, parts=encoder.pretrained_parts)`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, dim) of a batch as the modality's tokenizer takes it."""
        return super().forward(x)[:, self.num_prefix_tokens :].mean(dim=1)


class PlaneEncoder(PooledEncoder):
    """A `PooledEncoder` of planes, such as images, that also takes gray ones and several frames.

    A single channel is repeated to those that the tokenizer takes. Of frames (B, C, T, H, W) the features are
    averaged, as `ResNet18` does.

    Args:
        tokenizer: of planes (B, channels, H, W).
        channels: channels that it takes.
        transposed: whether the planes that this encoder gets are (W, H), which the tokenizer takes as (H, W).
        options: of `Encoder`.
    """

    def __init__(
        self, tokenizer: Tokenizer, channels: int, *, transposed: bool = False, **options: Any
    ) -> None:
        super().__init__(tokenizer, **options)
        self.channels = channels
        self.transposed = transposed

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, dim) of planes (B, C, H, W) or frames (B, C, T, H, W), C = 1 or `channels`.

        If `transposed`, H and W are swapped.
        """
        if x.ndim == 5:
            frames = x.transpose(1, 2)
            return self(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(dim=1)
        x = x.mT if self.transposed else x
        return super().forward(x.expand(-1, self.channels, -1, -1) if x.shape[1] == 1 else x)


def build_multimodal(
    settings: MultimodalSettings | Mapping[str, Any],
    *,
    num_classes: int,
    shapes: Mapping[str, Sequence[int]],
    architectures: Mapping[str, Mapping[str, Any]] | None = None,
    transposed: Collection[str] = (),
    modalities: Sequence[str] | None = None,
) -> MultimodalClassifier:
    """Build a classifier of several modalities, or of one alone.

    Args:
        settings: encoders by modality, fusion and initialization; a mapping is validated first.
        num_classes: number of classes.
        shapes: shape of a sample of each modality: (C, H, W) or (C, T, H, W) for a ResNet-18, (T, D) for
            sequences. Not needed for a transformer; of one that reads planes the sides are compared with its
            architecture.
        architectures: `modality`, `input`, `tokenizer` and `backbone` of each transformer, as for
            `build_encoder`.
        transposed: modalities whose planes have their sides the other way round than tokenizers take them;
            see `m2pt.catalog.Layout`. Encoders of other kinds take any order.
        modalities: modalities of the model, in this order; all that `settings` has by default.

    Raises:
        InputError: the settings are invalid, a shape or architecture is missing or unsuitable, no modality is
            given, one is unknown or repeated, or the fusion is not for this number of modalities.
    """
    if not isinstance(settings, MultimodalSettings):
        settings = MultimodalSettings.from_mapping(settings)
    names = tuple(settings.encoders if modalities is None else modalities)
    unknown = sorted(set(names) - set(settings.encoders))
    if unknown or not names or len(set(names)) < len(names):
        raise InputError(
            f"the modalities are {listed(names)}; give one or more, each once, out of "
            f"{listed(settings.encoders)}"
        )
    encoders = {
        name: _build_encoder(
            name, settings.encoders[name], shapes, architectures or {}, transposed=name in transposed
        )
        for name in names
    }
    dims = {name: encoder.embed_dim for name, encoder in encoders.items()}
    model = MultimodalClassifier(encoders, build_fusion(settings.fusion, dims, num_classes), num_classes)
    if settings.init == "released":
        init_released(model)
    return model


def build_fusion(settings: FusionSettings, dims: Mapping[str, int], num_classes: int) -> nn.Module:
    """Build a fusion of features of these widths.

    Raises:
        InputError: the fusion is for two modalities, or names another one.
    """
    options = asdict(settings)
    return FUSIONS[options.pop("kind")](dims, num_classes, **options)


def init_released(model: nn.Module) -> None:
    """Initialize all layers as the AGM code does for CREMA-D, in place.

    Weights of linear layers are Xavier-normal, those of 2-D convolutions Kaiming-uniform in fan-out mode,
    batch norms 1 and 0. Biases of linear layers are 0 as in OGM-GE's `weight_init`, which AGM follows.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def _build_encoder(
    name: str,
    settings: EncoderSettings,
    shapes: Mapping[str, Sequence[int]],
    architectures: Mapping[str, Mapping[str, Any]],
    *,
    transposed: bool,
) -> ResNet18 | SequenceEncoder | PooledEncoder:
    options = asdict(settings)
    kind = options.pop("kind")
    if isinstance(settings, ResNet18Settings):
        return ResNet18(_shape(name, kind, shapes, "(C, H, W) or (C, T, H, W)", (3, 4))[0], **options)
    if isinstance(settings, SequenceEncoderSettings):
        return SequenceEncoder(_shape(name, kind, shapes, "(T, D)", (2,))[1], **options)
    if name not in architectures:
        raise InputError(
            f"modality {name}: encoder transformer needs an architecture; give its modality, input, "
            "tokenizer and backbone"
        )
    architecture = architectures[name]
    backbone = architecture["backbone"]
    tokenizer = build_tokenizer(
        architecture["modality"],
        dim=backbone["dim"],
        input=architecture["input"],
        settings=architecture["tokenizer"],
    )
    plane = catalog.modality(architecture["modality"]).plane
    if plane is None:
        return PooledEncoder(tokenizer, **backbone, **options)
    if name in shapes:
        _check_sides(name, shapes[name], plane, architecture["input"], transposed=transposed)
    return PlaneEncoder(tokenizer, plane.channels, transposed=transposed, **backbone, **options)


def _check_sides(
    name: str, shape: Sequence[int], plane: catalog.Plane, input: Mapping[str, Any], *, transposed: bool
) -> None:
    given = tuple(reversed(shape[-2:])) if transposed else tuple(shape[-2:])
    wanted = tuple(input[side] for side in plane.sides)
    if given != (wanted if len(wanted) == 2 else wanted * 2):
        sides = ", ".join(f"{side}: {size}" for side, size in zip(plane.sides, wanted, strict=True))
        raise InputError(
            f"modality {name}: a sample has the sides {given[0]} x {given[1]}, but its encoder transformer "
            f"has {sides}; give the sample's in the recipe, as architecture.{name}.input"
        )


def _shape(
    name: str, kind: str, shapes: Mapping[str, Sequence[int]], form: str, axes: tuple[int, ...]
) -> Sequence[int]:
    shape = shapes.get(name)
    if shape is None or len(shape) not in axes:
        given = "no shape" if shape is None else f"the shape {tuple(shape)}"
        raise InputError(f"modality {name} has {given}; encoder {kind} needs {form} of a sample")
    return shape
