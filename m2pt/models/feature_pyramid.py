"""ViTDet's simple feature pyramid: all levels from the last map of a plain transformer."""

from collections import OrderedDict
from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

from m2pt.models.feature_maps import TokenMaps, rescaling
from m2pt.models.transformer import Encoder


class SimpleFeaturePyramid(nn.Module):
    """Encoder and pyramid: images (B, 3, H, W) to {"0": (B, C, H/s0, W/s0), "1": …}, finest first.

    Source: Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", section 3; layers
    as in detectron2 `SimpleFeaturePyramid`: rescaling, then 1×1 and 3×3 convolutions, each with LayerNorm.

    Args:
        encoder: image encoder; the tokens after its last block are used.
        strides: strides of the levels in pixels, ascending, each the patch size times a power of two.
        channels: width C of every level.
        extra_level: add a level of twice the last stride by subsampling (for the RPN's largest anchors).
        frozen: keep the encoder fixed.
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
