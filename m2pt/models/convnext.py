"""timm's ConvNeXt for images and spectrograms: pathways between convolutional models.

A pathway needs layers of equal shape, not a transformer. Two ConvNeXts of the same depths and widths differ
only in the input channels of their stems, so their blocks can be attached to each other:

    attach(image.blocks, audio.blocks, layers=LAYERS)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from torch import nn

from m2pt import catalog
from m2pt.errors import InputError
from m2pt.models.settings import ClassifierSettings

LAYERS = ("conv_dw", "mlp.fc1", "mlp.fc2")
"""Layers of a ConvNeXt block with a weight matrix or a convolution kernel."""

STAGES = 4
REDUCTION = 32
"""Stride of the last stage in input pixels."""


class ConvNeXtClassifier(ConvNeXt):
    """timm's ConvNeXt with the same keys, plus `blocks` and `pretrained_parts` as an `Encoder` has them.

    Maps (B, C, H, W) to logits (B, num_classes), or to normalized features (B, dims[-1]) if `num_classes` is
    0. Source: Liu et al. 2022, "A ConvNet for the 2020s".
    """

    @property
    def blocks(self) -> list[nn.Module]:
        """Blocks of all stages in order, without the downsampling layers between stages."""
        return [module for module in self.stages.modules() if isinstance(module, ConvNeXtBlock)]

    @property
    def pretrained_parts(self) -> tuple[str, ...]:
        """Parts (see `exchange`) to load from a pretrained model: stem and stages, not the head."""
        return ("tokenizer", "blocks")


def build_convnext(
    modality: str,
    *,
    input: Mapping[str, Any],
    depths: Sequence[int],
    dims: Sequence[int],
    num_classes: int = 0,
    **settings: Any,
) -> ConvNeXtClassifier:
    """Build a ConvNeXt.

    Args:
        modality: image, audio or another plane of the catalog.
        input: its sides, such as `image_size`, or `frames` and `mel_bins`; each at least 32.
        depths: number of blocks of each of the four stages, (3, 3, 9, 3) in ConvNeXt-T.
        dims: channels of each stage, (96, 192, 384, 768) in ConvNeXt-T.
        num_classes: number of classes; 0 leaves the classifier out.
        **settings: fields of `ClassifierSettings`; a ConvNeXt has pool avg and head linear.

    Raises:
        InputError: another modality, pool, head or number of stages, or too small an input.
    """
    chosen = ClassifierSettings(**settings)
    plane = catalog.modality(modality).plane
    if plane is None:
        planes = " and ".join(name for name, entry in catalog.MODALITIES.items() if entry.plane)
        raise InputError(f"body convnext is for {planes}, not {modality}: use transformer")
    if len(depths) != STAGES or len(dims) != STAGES:
        raise InputError(f"convnext has depths {list(depths)} and dims {list(dims)}: give {STAGES} of each")
    if (chosen.pool, chosen.head) != ("avg", "linear"):
        raise InputError(
            f"a ConvNeXt has pool avg and head linear, not {chosen.pool} and {chosen.head}: change the recipe"
        )
    for name in plane.sides:
        if input[name] < REDUCTION:
            raise InputError(f"{name} {input[name]} is too small for a ConvNeXt: give at least {REDUCTION}")
    return ConvNeXtClassifier(
        in_chans=plane.channels,
        num_classes=num_classes,
        depths=tuple(depths),
        dims=tuple(dims),
        drop_path_rate=chosen.drop_path,
    )
