"""A convolutional body for two modalities: timm's ConvNeXt on images and on spectrograms.

A pathway needs layers of equal shape, not a transformer. Two ConvNeXts of the same depths and widths differ
in the channels of their stems alone, so that their blocks can be attached to each other:

    attach(image.blocks, audio.blocks, layers=LAYERS)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from torch import nn

from m2pt.errors import InputError

LAYERS = ("conv_dw", "mlp.fc1", "mlp.fc2")
"""The layers of a ConvNeXt block that have a weight matrix or a kernel."""

CHANNELS = {"image": 3, "audio": 1}
STAGES = 4
REDUCTION = 32
"""Input pixels per pixel, along each axis, of the last stage."""


class ConvNeXtClassifier(ConvNeXt):
    """timm's ConvNeXt, key by key, with what commands ask of a model: `blocks` and `pretrained_parts`.

    (B, C, H, W) to logits (B, num_classes), or with `num_classes` 0 to normalised features (B, dims[-1]).
    Source: Liu et al. 2022, "A ConvNet for the 2020s".
    """

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of all stages, in order, without the downsampling layers between the stages."""
        return [module for module in self.stages.modules() if isinstance(module, ConvNeXtBlock)]

    @property
    def pretrained_parts(self) -> tuple[str, ...]:
        """The parts (see `exchange`) that a pretrained model provides: stem and stages, not the head."""
        return ("tokenizer", "blocks")


def build_convnext(
    modality: str,
    *,
    input: Mapping[str, Any],
    depths: Sequence[int],
    dims: Sequence[int],
    num_classes: int = 0,
    pool: str = "avg",
    head: str = "linear",
    drop_path: float = 0.0,
) -> ConvNeXtClassifier:
    """Make a ConvNeXt.

    Args:
        modality: image or audio.
        input: `image_size`, or `frames` and `mel_bins`; each at least 32.
        depths, dims: blocks and channels of each of the four stages; (3, 3, 9, 3) and (96, 192, 384, 768) are
            ConvNeXt-T's.
        num_classes: 0 leaves the classifier out.
        pool, head: as for `build_classifier`; a ConvNeXt has one of each, a mean that is normalised and a
            linear layer.
        drop_path: stochastic depth rate of the last block.

    Raises:
        InputError: another modality, pool or head, another number of stages, or too small an input.
    """
    if modality not in CHANNELS:
        raise InputError(f"body convnext is for {' and '.join(CHANNELS)}, not {modality}: give transformer")
    if len(depths) != STAGES or len(dims) != STAGES:
        raise InputError(f"convnext has depths {list(depths)} and dims {list(dims)}: give {STAGES} of each")
    if (pool, head) != ("avg", "linear"):
        raise InputError(f"a ConvNeXt has pool avg and head linear, not {pool} and {head}: change the recipe")
    for name in ("image_size",) if modality == "image" else ("frames", "mel_bins"):
        if input[name] < REDUCTION:
            raise InputError(f"{name} {input[name]} leaves nothing for a ConvNeXt: give at least {REDUCTION}")
    return ConvNeXtClassifier(
        in_chans=CHANNELS[modality],
        num_classes=num_classes,
        depths=tuple(depths),
        dims=tuple(dims),
        drop_path_rate=drop_path,
    )
