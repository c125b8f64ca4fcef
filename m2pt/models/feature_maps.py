"""A plain transformer as the backbone of a dense task: tokens laid out as maps, and rescaled."""

import math
from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.modalities.image import ImageTokenizer
from m2pt.models.transformer import Encoder


class TokenMaps(nn.Module):
    """Image encoder whose patch tokens after the blocks `taps` are laid out as maps (B, D, h, w).

    The encoder's final norm is bypassed, as ViTDet and mmsegmentation's UperNet do; whatever comes after the
    last tap is therefore excluded from training (DDP would wait for its gradients).

    With `frozen` the whole encoder is a constant function: no parameter asks for a gradient, so that none is
    computed, and it is in evaluation mode (no drop path) whatever mode the model around it is in. Whoever
    wants single parameters trained all the same, as cross-modal scales, sets their `requires_grad` again.

    Args:
        encoder: an encoder of images, which must have the size it was built for.
        taps: 0-based block numbers, ascending.
        frozen: keep the encoder's weights and mode fixed.

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
        """Set the training mode, of which a frozen encoder takes no notice."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to one map (B, D, H / stride, W / stride) per tap."""
        taps = self.encoder.forward_taps(images, self.taps)
        return [tokens.transpose(1, 2).unflatten(2, self.grid) for tokens in taps]


def rescaling(dim: int, stride: int, wanted: int, *, shrink: bool) -> tuple[nn.Module, int]:
    """Layers that take a map from `stride` to stride `wanted`, and the number of channels they put out.

    Up: one 2×2 transposed convolution per doubling, LayerNorm and GELU between; down: max pooling.

    Args:
        dim: channels of the input map.
        stride: its stride in pixels.
        wanted: the stride asked for, `stride` times a power of two.
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
    """Layer-wise lr decay of a dense model whose `Encoder` has the dotted name `encoder`, in timm's form.

    Embeddings are layer 0, block N is layer N + 1 and all that matches nothing (pyramid, decoder, heads)
    the last, as in ViTDet's `get_vit_lr_decay_rate`.
    """
    prefix = "^" + encoder.replace(".", r"\.") + r"\."
    return {"embeddings": prefix + r"(?!blocks\.|norm\.)", "blocks": prefix + r"blocks\.(\d+)\."}
