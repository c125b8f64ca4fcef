"""UperNet on a plain transformer: a pyramid from four taps, the decoder of segmentation_models_pytorch."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.models.feature_pyramid import TokenMaps, layer_groups, rescaling
from m2pt.models.settings import IGNORED, UPerNetSettings
from m2pt.models.transformer import Encoder

ENCODER = "maps.encoder"
AUXILIARY_LEVEL = 2


class UPerNet(nn.Module):
    """Semantic segmentation of square crops, or of larger images with a sliding window.

    Source: Xiao et al., "Unified Perceptual Parsing for Scene Understanding"; pyramid, auxiliary head and
    loss as in mmsegmentation's `configs/mae` and `Feature2Pyramid`.

    Args:
        encoder: image encoder built for square inputs of `image_size`.
        num_classes: number of classes.
        image_size: side in pixels of the training crop and of the window.
        freeze_backbone: freeze the encoder.
        settings: all other settings.

    Raises:
        InputError: the taps or strides do not match the encoder, the number of class weights is not the
            number of classes, or the windows leave gaps.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int,
        image_size: int,
        freeze_backbone: bool,
        settings: UPerNetSettings,
    ) -> None:
        super().__init__()
        weights = settings.class_weights
        if weights is not None and len(weights) != num_classes:
            raise InputError(
                f"model.class_weights: {len(weights)} weights for {num_classes} classes; give one for each."
            )
        if settings.window_stride > image_size:
            raise InputError(
                f"model.window_stride: {settings.window_stride} leaves gaps between windows of {image_size} "
                f"pixels; give at most {image_size}."
            )
        self.num_classes = num_classes
        self.image_size = image_size
        self.settings = settings
        self.register_buffer(
            "class_weights", None if weights is None else torch.tensor(weights), persistent=False
        )

        dim = encoder.embed_dim
        self.maps = TokenMaps(encoder, settings.taps, frozen=freeze_backbone)
        self.rescale = nn.ModuleList(
            rescaling(dim, self.maps.stride, stride, shrink=False)[0] for stride in settings.strides
        )
        # The decoder ignores features of stride 1 and 2, the two entries before the pyramid.
        self.decoder = UPerNetDecoder([dim] * 6, encoder_depth=5, decoder_channels=settings.channels)
        initialize_decoder(self.decoder)
        self.head = _classifier(settings.channels, num_classes, settings)
        self.auxiliary_head = (
            nn.Sequential(
                Conv2dReLU(dim, settings.auxiliary_channels, kernel_size=3, padding=1),
                _classifier(settings.auxiliary_channels, num_classes, settings),
            )
            if settings.auxiliary_weight
            else None
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Return logits (B, num_classes, H, W), or the losses if labels (B, H, W; 255 = ignored) are given.

        Without labels, images of any size are padded to `image_size` or covered by overlapping windows whose
        logits are averaged.
        """
        if labels is None:
            return self._slide(images)
        logits, auxiliary = self._logits(images)
        losses = {"loss_decoder": self._cross_entropy(logits, labels)}
        if auxiliary is not None:
            losses["loss_auxiliary"] = self.settings.auxiliary_weight * self._cross_entropy(auxiliary, labels)
        return losses

    def _logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        pyramid = [rescale(tap) for rescale, tap in zip(self.rescale, self.maps(images), strict=True)]
        logits = self.head(self.decoder([images, images, *pyramid]))
        auxiliary = None
        if self.training and self.auxiliary_head is not None:
            auxiliary = _resize(self.auxiliary_head(pyramid[AUXILIARY_LEVEL]), images)
        return _resize(logits, images), auxiliary

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        # The mean includes ignored pixels, as in mmsegmentation: a crop without labels gives 0.
        return functional.cross_entropy(
            logits, labels, weight=self.class_weights, ignore_index=IGNORED, reduction="none"
        ).mean()

    def _slide(self, images: Tensor) -> Tensor:
        window, step = self.image_size, self.settings.window_stride
        height, width = images.shape[-2:]
        images = functional.pad(images, (0, max(window - width, 0), 0, max(window - height, 0)))
        total = images.new_zeros((len(images), self.num_classes, *images.shape[-2:]))
        count = images.new_zeros(images.shape[-2:])
        tops, lefts = (_offsets(length, window, step) for length in images.shape[-2:])
        for top, left in product(tops, lefts):
            place = (..., slice(top, top + window), slice(left, left + window))
            total[place] += self._logits(images[place])[0]
            count[place] += 1
        return (total / count)[..., :height, :width]

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return the layer groups of timm's layer decay; blocks are the finest unit either way."""
        return layer_groups(ENCODER)

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay, those of the encoder."""
        return {f"{ENCODER}.{name}" for name in self.maps.encoder.no_weight_decay()}


def build_upernet(
    encoder: Encoder, *, num_classes: int, image_size: int, freeze_backbone: bool, **settings: Any
) -> UPerNet:
    """Build a `UPerNet`; `settings` are the fields of `UPerNetSettings`."""
    return UPerNet(
        encoder,
        num_classes=num_classes,
        image_size=image_size,
        freeze_backbone=freeze_backbone,
        settings=UPerNetSettings(**settings),
    )


def _classifier(channels: int, num_classes: int, settings: UPerNetSettings) -> nn.Sequential:
    """Build dropout and a classifier, initialized as mmsegmentation does: from Normal(0, 0.01) by default."""
    classify = nn.Conv2d(channels, num_classes, kernel_size=1)
    nn.init.normal_(classify.weight, std=settings.classifier_std)
    assert classify.bias is not None
    nn.init.zeros_(classify.bias)
    return nn.Sequential(nn.Dropout2d(settings.dropout), classify)


def _resize(logits: Tensor, images: Tensor) -> Tensor:
    return functional.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _offsets(length: int, window: int, step: int) -> Sequence[int]:
    """Return the starts of windows that cover `length` pixels, the last one flush with the end."""
    return [*range(0, length - window, step), length - window]
