"""Settings of the dense models, named in one place; plain Python, so that reading a config imports no torch.

The defaults are the published ViT-B recipes; a recipe overrides what it needs.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le, Len, Lt

IGNORED = 255
"""Label of the pixels that count neither in the loss nor in the evaluation of semantic segmentation."""

Positive = Annotated[int, Gt(0), Le(1_000_000)]
PositiveFloat = Annotated[float, Gt(0), Le(1_000_000)]
NonNegative = Annotated[int, Ge(0), Le(1_000)]
Fraction = Annotated[float, Ge(0), Le(1)]
Widths = tuple[Positive, ...]


@dataclass(frozen=True, kw_only=True)
class MaskRCNNSettings:
    """Mask R-CNN on a plain transformer; defaults: detectron2, projects/ViTDet, `mask_rcnn_vitdet_b_100ep`.

    What torchvision does not offer stays as torchvision has it: smooth L1 with beta 1/9 for boxes (ViTDet:
    L1) and RoIAlign without the half-pixel shift.

    Raises:
        ValueError: the anchors are not given once per level.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    strides: Annotated[Widths, Len(1)] = (4, 8, 16, 32)
    """Strides of the pyramid's levels in pixels, finest first: the patch size times powers of two."""
    channels: Positive = 256
    """Width of every level and of the RPN."""
    extra_level: bool = True
    """Subsample the last level once more, for the RPN only."""

    anchor_sizes: tuple[tuple[PositiveFloat, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    """Sides of the anchors in pixels, per level (the extra one included)."""
    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Len(1)] = (0.5, 1.0, 2.0)
    """Height / width of the anchors, the same at all levels."""
    rpn_convs: Positive = 2
    """3x3 convolutions of the RPN before its two predictions."""
    rpn_pre_nms: tuple[Positive, Positive] = (2000, 1000)
    """Best anchors per level that enter non-maximum suppression, in training and in evaluation."""
    rpn_post_nms: tuple[Positive, Positive] = (1000, 1000)
    """Proposals per image that leave it, in training and in evaluation."""
    rpn_nms_iou: Fraction = 0.7
    """Overlap above which the weaker of two proposals is suppressed."""
    rpn_fg_iou: Fraction = 0.7
    """Least overlap of an anchor with an object that makes it a positive example."""
    rpn_bg_iou: Fraction = 0.3
    """Overlap below which an anchor is a negative example."""
    rpn_batch: Positive = 256
    """Anchors per image in the RPN's loss."""

    roi_batch: Positive = 512
    """Proposals per image in the heads' loss, a quarter of them positive."""
    roi_fg_iou: Fraction = 0.5
    """Overlap with an object that makes a proposal positive; below it is background."""
    sampling_ratio: NonNegative = 0
    """Samples per bin and axis in RoIAlign; 0 adapts to the size of the proposal."""
    canonical_scale: PositiveFloat = 224
    """Side in pixels of the proposals that are pooled at stride 16 (FPN paper, equation 1)."""
    box_resolution: Positive = 7
    """Side of what RoIAlign cuts out for the box head, in bins."""
    box_convs: Widths = (256, 256, 256, 256)
    """Channels of the box head's 3x3 convolutions, each with LayerNorm."""
    box_units: Annotated[Widths, Len(1)] = (1024,)
    """Units of the box head's fully connected layers."""
    mask_resolution: Positive = 14
    """Side of what RoIAlign cuts out for the mask head; masks are predicted at twice this side."""
    mask_convs: Annotated[Widths, Len(1)] = (256, 256, 256, 256)
    """Channels of the mask head's 3x3 convolutions, each with LayerNorm; the deconvolution has the last."""

    score_threshold: Fraction = 0.05
    """Detections with a lower score are dropped."""
    nms_iou: Fraction = 0.5
    """Overlap above which the weaker of two detections of one class is dropped."""
    detections: Positive = 100
    """Most detections per image."""

    def __post_init__(self) -> None:
        levels = len(self.strides) + self.extra_level
        if len(self.anchor_sizes) != levels:
            raise ValueError(
                f"anchor_sizes has {len(self.anchor_sizes)} entries, the pyramid {levels} levels"
            )


@dataclass(frozen=True, kw_only=True)
class UPerNetSettings:
    """UperNet on a plain transformer; defaults: mmsegmentation, `configs/mae/mae-base_upernet`."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    taps: tuple[NonNegative, NonNegative, NonNegative, NonNegative] = (3, 5, 7, 11)
    """0-based blocks whose tokens become the four levels of the pyramid."""
    strides: tuple[Positive, Positive, Positive, Positive] = (4, 8, 16, 32)
    """Strides of the levels in pixels, finest first: the patch size times powers of two."""
    channels: Positive = 768
    """Width of the decoder."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Dropout of whole channels before each classifying convolution."""
    auxiliary_channels: Positive = 256
    """Width of the auxiliary head, a small FCN on the third level."""
    auxiliary_weight: Annotated[float, Ge(0), Le(1_000)] = 0.4
    """Weight of the auxiliary head's loss; 0 leaves the head out."""
    class_weights: tuple[Annotated[float, Ge(0), Le(1_000_000)], ...] | None = None
    """Weight of each class in the cross-entropy; null: 1 each."""
    window_stride: Positive = 341
    """Step in pixels at which a window of the training crop's size slides over an image in evaluation."""
