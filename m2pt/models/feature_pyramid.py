"""A plain transformer as the backbone of a dense task: its tokens as feature maps, rescaled to a pyramid."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.modalities.image import ImageTokenizer
from m2pt.models.transformer import Encoder


class TokenMaps(nn.Module):
    """Image encoder with the patch tokens after the blocks `taps` arranged as maps (B, D, h, w).

    The encoder's final norm is bypassed, as in ViTDet and mmsegmentation's UperNet. All that follows the last
    tap is frozen, since DDP would wait for its gradients.

    If `frozen`, no parameter of the encoder requires a gradient, and it stays in evaluation mode (no drop
    path) whatever the mode of the surrounding model. To train single parameters nevertheless, such as
    cross-modal scales, set their `requires_grad` afterwards.

    Args:
        encoder: encoder of images; inputs must have the size that it was built for.
        taps: 0-based block numbers, ascending.
        frozen: freeze the encoder's weights and mode.

    Raises:
        InputError: the encoder is not one of images, or the taps are not ascending numbers of its blocks.
    """

    def __init__(self, encoder: Encoder, taps: Sequence[int], *, frozen: bool) -> None:
        super().__init__()
        if not isinstance(encoder.tokenizer, ImageTokenizer):
            raise InputError("dense tasks need an encoder of images; this one is of another modality.")
        depth = len(encoder.blocks)
        if not taps or list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] < depth:
            raise InputError(
                f"model.taps: {list(taps)} must be ascending block numbers between 0 and {depth - 1}."
            )
        self.encoder = encoder
        self.grid = encoder.tokenizer.grid
        self.stride = encoder.tokenizer.patch_size
        self.taps = list(taps)
        self.frozen = frozen
        for unused in (*encoder.blocks[taps[-1] + 1 :], encoder.norm):
            unused.requires_grad_(False)
        if frozen:
            encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "TokenMaps":
        """Set the training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to one map (B, D, H / stride, W / stride) per tap."""
        taps = self.encoder.forward_taps(images, self.taps)
        return [tokens.transpose(1, 2).unflatten(2, self.grid) for tokens in taps]


class SimpleFeaturePyramid(nn.Module):
    """ViTDet's pyramid, all levels from the last map: (B, 3, H, W) to {"0": (B, C, H/s0, W/s0), "1": …}.

    Source: Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", section 3. Layers
    as in detectron2 `SimpleFeaturePyramid`: rescaling, then 1×1 and 3×3 convolutions, each with LayerNorm.

    Args:
        encoder: image encoder; the tokens after its last block are used.
        strides: strides of the levels in pixels, finest first, each the patch size times a power of two.
        channels: width C of every level.
        extra_level: add a level of twice the last stride by subsampling (for the RPN's largest anchors).
        frozen: freeze the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        strides: Sequence[int],
        channels: int,
        extra_level: bool = False,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.maps = TokenMaps(encoder, [len(encoder.blocks) - 1], frozen=frozen)
        self.levels = nn.ModuleList()
        for stride in strides:
            rescale, width = rescaling(encoder.embed_dim, self.maps.stride, stride, shrink=True)
            self.levels.append(
                nn.Sequential(
                    rescale,
                    nn.Conv2d(width, channels, kernel_size=1, bias=False),
                    LayerNorm2d(channels),
                    nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
                    LayerNorm2d(channels),
                )
            )
        self.extra_level = extra_level
        self.out_channels = channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the levels under the names "0", "1", … that torchvision's detectors expect."""
        (tokens,) = self.maps(images)
        levels = [level(tokens) for level in self.levels]
        if self.extra_level:
            levels.append(functional.max_pool2d(levels[-1], kernel_size=1, stride=2))
        return OrderedDict((str(number), level) for number, level in enumerate(levels))


def rescaling(dim: int, stride: int, wanted: int, *, shrink: bool) -> tuple[nn.Module, int]:
    """Build layers that rescale a map from `stride` to stride `wanted`; also return their output channels.

    Upsampling has one 2×2 transposed convolution per doubling, with LayerNorm and GELU between them;
    downsampling is max pooling.

    Args:
        dim: channels of the input map.
        stride: its stride in pixels.
        wanted: stride of the output, `stride` times a power of two.
        shrink: halve the channels at every doubling (ViTDet, `SimpleFeaturePyramid`) or keep them
            (mmsegmentation, `Feature2Pyramid`).

    Raises:
        InputError: the strides do not differ by a power of two.
    """
    doublings = math.log2(stride / wanted)
    if not doublings.is_integer():
        raise InputError(
            f"model.strides: {wanted} cannot be made from patches of {stride} pixels; "
            f"use {stride} times a power of two."
        )
    if doublings < 0:
        return nn.MaxPool2d(wanted // stride), dim
    layers: list[nn.Module] = []
    for step in range(int(doublings)):
        if step:
            layers += [LayerNorm2d(dim), nn.GELU()]
        width = dim // 2 if shrink else dim
        layers.append(nn.ConvTranspose2d(dim, width, kernel_size=2, stride=2))
        dim = width
    return nn.Sequential(*layers), dim


def layer_groups(encoder: str) -> dict[str, str]:
    """Return timm's layer groups of a dense model, given the dotted name of its `Encoder`.

    Embeddings are layer 0, block N is layer N + 1, and all else (pyramid, decoder, heads) is the last layer,
    as in ViTDet's `get_vit_lr_decay_rate`.
    """
    prefix = "^" + encoder.replace(".", r"\.") + r"\."
    return {"embeddings": prefix + r"(?!blocks\.|norm\.)", "blocks": prefix + r"blocks\.(\d+)\."}
