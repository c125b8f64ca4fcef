"""Mask R-CNN (torchvision) on a plain transformer with ViTDet's simple feature pyramid."""

import math
from typing import Any

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from m2pt.models.feature_pyramid import SimpleFeaturePyramid, layer_groups
from m2pt.models.settings import MaskRCNNSettings
from m2pt.models.transformer import Encoder
from m2pt.models.windows import attend_on_grid

ENCODER = "backbone.maps.encoder"


class PadToSquare(nn.Module):
    """Replaces torchvision's resizing transform: images come resized from the reader and are only padded.

    torchvision's transform would scale every image to `min_size` and paste each mask at the input's
    resolution. Here masks keep their 2·mask_resolution square, to be pasted once at the original resolution.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        """Zero-pad images (3, h, w) at the right and the bottom; targets keep their coordinates."""
        size = self.image_size
        batch = images[0].new_zeros((len(images), 3, size, size))
        for padded, image in zip(batch, images, strict=True):
            padded[:, : image.shape[1], : image.shape[2]] = image
        return ImageList(batch, [(image.shape[1], image.shape[2]) for image in images]), targets

    def postprocess(
        self, result: list[dict[str, Tensor]], image_shapes: Any, original_image_sizes: Any
    ) -> list[dict[str, Tensor]]:
        """Return boxes in the input's pixels and masks relative to their boxes, as they are."""
        return result


class PlainMaskRCNN(MaskRCNN):
    """Mask R-CNN with layer groups for timm's optimizers.

    In training `model(images, targets)` returns a dictionary of losses; in evaluation `model(images)` returns
    per image boxes (N, 4) in input pixels, labels (N,), scores (N,) and mask probabilities (N, 1, M, M) to be
    stretched over the boxes.
    """

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return the layer groups of timm's layer decay; blocks are the finest unit either way."""
        return layer_groups(ENCODER)

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay, those of the encoder."""
        return {f"{ENCODER}.{name}" for name in self.backbone.maps.encoder.no_weight_decay()}


def build_mask_rcnn(
    encoder: Encoder, *, num_classes: int, image_size: int, freeze_backbone: bool, **settings: Any
) -> PlainMaskRCNN:
    """Build a Mask R-CNN for `num_classes` categories (labels 1 … num_classes; 0 is background).

    Args:
        encoder: image encoder built for square inputs of `image_size`.
        num_classes: number of categories, without background.
        image_size: side in pixels to which normalized images, at most this large, are padded.
        freeze_backbone: freeze the encoder and train pyramid and heads only.
        **settings: fields of `MaskRCNNSettings`.

    Raises:
        InputError: a stride is not the encoder's patch size times a power of two, or a global block is none.
    """
    chosen = MaskRCNNSettings(**settings)
    if chosen.window_size:
        tokenizer: Any = encoder.tokenizer
        side = image_size // tokenizer.patch_size
        attend_on_grid(
            encoder,
            (side, side),
            window=chosen.window_size,
            global_blocks=chosen.global_blocks,
            relative_positions=chosen.relative_positions,
        )
    pyramid = SimpleFeaturePyramid(
        encoder,
        strides=chosen.strides,
        channels=chosen.channels,
        extra_level=chosen.extra_level,
        frozen=freeze_backbone,
    )
    anchors = AnchorGenerator(chosen.anchor_sizes, (chosen.anchor_ratios,) * len(chosen.anchor_sizes))
    classes = num_classes + 1
    model = PlainMaskRCNN(
        pyramid,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(chosen.channels, anchors.num_anchors_per_location()[0], chosen.rpn_convs),
        rpn_pre_nms_top_n_train=chosen.rpn_pre_nms[0],
        rpn_pre_nms_top_n_test=chosen.rpn_pre_nms[1],
        rpn_post_nms_top_n_train=chosen.rpn_post_nms[0],
        rpn_post_nms_top_n_test=chosen.rpn_post_nms[1],
        rpn_nms_thresh=chosen.rpn_nms_iou,
        rpn_fg_iou_thresh=chosen.rpn_fg_iou,
        rpn_bg_iou_thresh=chosen.rpn_bg_iou,
        rpn_batch_size_per_image=chosen.rpn_batch,
        box_roi_pool=_roi_align(chosen, chosen.box_resolution),
        box_head=FastRCNNConvFCHead(
            (chosen.channels, chosen.box_resolution, chosen.box_resolution),
            list(chosen.box_convs),
            list(chosen.box_units),
            norm_layer=LayerNorm2d,
        ),
        box_predictor=FastRCNNPredictor(chosen.box_units[-1], classes),
        box_score_thresh=chosen.score_threshold,
        box_nms_thresh=chosen.nms_iou,
        box_detections_per_img=chosen.detections,
        box_fg_iou_thresh=chosen.roi_fg_iou,
        box_bg_iou_thresh=chosen.roi_fg_iou,
        box_batch_size_per_image=chosen.roi_batch,
        mask_roi_pool=_roi_align(chosen, chosen.mask_resolution),
        mask_head=MaskRCNNHeads(chosen.channels, list(chosen.mask_convs), 1, norm_layer=LayerNorm2d),
        mask_predictor=MaskRCNNPredictor(chosen.mask_convs[-1], chosen.mask_convs[-1], classes),
    )
    model.transform = PadToSquare(image_size)
    _initialize(model, chosen.predictor_stds)
    return model


def _initialize(model: PlainMaskRCNN, predictor_stds: tuple[float, float, float]) -> None:
    """Initialize the predictors and the fully connected layers as detectron2 does; torchvision does not."""
    predictor, box_head = model.roi_heads.box_predictor, model.roi_heads.box_head
    layers = (predictor.cls_score, predictor.bbox_pred, model.roi_heads.mask_predictor.mask_fcn_logits)
    for layer, std in zip(layers, predictor_stds, strict=True):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    for layer in box_head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)


def _roi_align(settings: MaskRCNNSettings, resolution: int) -> MultiScaleRoIAlign:
    pool = MultiScaleRoIAlign(
        [str(level) for level in range(len(settings.strides))], resolution, settings.sampling_ratio
    )
    # Without this the pool infers the strides from the first batch's unpadded sizes, once and for all.
    pool.scales = [1 / stride for stride in settings.strides]
    pool.map_levels = initLevelMapper(
        round(math.log2(settings.strides[0])),
        round(math.log2(settings.strides[-1])),
        canonical_scale=settings.canonical_scale,
    )
    return pool
