"""Settings of models that recipes can change, with their defaults.

pydantic enforces the ranges when a recipe is read. Plain Python, so that reading a config imports no torch.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Len

from m2pt.ranges import Block, Depth, Fraction, Share, Size

IGNORED = 255
"""Label of pixels that semantic segmentation ignores, in the loss and in the evaluation."""

SMALL_STD = 0.01
"""Largest standard deviation of the initial weights of a predicting layer at which its logits are about 0:
that of detectron2's and mmsegmentation's classifiers."""

Pool = Literal["avg", "token"]
Head = Literal["linear", "batchnorm_linear"]

PositiveFloat = Annotated[float, Gt(0), Le(1_000_000)]
Widths = Annotated[tuple[Size, ...], Len(1)]


class Settings:
    """Base of all settings: an unknown key in a recipe is an error."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class DecoderSettings(Settings):
    """Decoder of a masked autoencoder.

    Raises:
        ValueError: `dim` is not a multiple of `num_heads`.
    """

    dim: Size
    depth: Depth
    num_heads: Size
    kind: Literal["global", "windowed"] = "global"
    """Attention over all tokens, or over windows as in AudioMAE (audio only)."""

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(Settings):
    """Pooling and head on top of the blocks, and stochastic depth."""

    pool: Pool = "avg"
    """Mean of the tokens, or the class token."""
    head: Head = "linear"
    """A linear layer, or one on features standardized by a batch norm (MAE's linear probing)."""
    drop_path: Share = 0.0
    """Stochastic depth rate of the last block."""


@dataclass(frozen=True, kw_only=True)
class TokenDrop(Settings):
    """Shares of the time steps and frequency rows of tokens that AudioMAE drops in training."""

    time: Share = 0.0
    frequency: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class AudioClassifierSettings(ClassifierSettings):
    """A classifier that can drop tokens in training."""

    token_drop: TokenDrop = TokenDrop()


@dataclass(frozen=True, kw_only=True)
class SegmenterSettings(Settings):
    """Segmentation head on a point cloud encoder; defaults: Point-MAE."""

    taps: Annotated[tuple[Block, ...], Len(1)]
    """0-based blocks whose tokens are used, ascending up to the last block; 3, 7, 11 in Point-MAE."""
    propagation_dims: Widths
    """Widths of the layers on interpolated features; 4 times the encoder's width, then 1024 in Point-MAE."""
    hidden_dims: Widths
    """Widths of the layers before the classifier; 512, 256 in Point-MAE."""
    dropout: Share = 0.5
    """Dropout after the first hidden layer."""
    drop_path: Share = 0.0
    """Stochastic depth rate of the last block; 0.1 in Point-MAE."""


@dataclass(frozen=True, kw_only=True)
class PartSegmenterSettings(SegmenterSettings):
    """A part segmenter with a branch for the category of the shape."""

    label_dim: Size = 64
    """Width of the branch."""


@dataclass(frozen=True, kw_only=True)
class MaskRCNNSettings(Settings):
    """Mask R-CNN on a plain transformer; defaults: detectron2, projects/ViTDet, `mask_rcnn_vitdet_b_100ep`.

    Windows have no default, since they depend on the size of the images and the depth. Two details are
    torchvision's, which has no option for them: smooth L1 with beta 1/9 for boxes (ViTDet: L1) and RoIAlign
    without the half-pixel shift.

    Raises:
        ValueError: `anchor_sizes` does not have one entry per level.
    """

    window_size: Annotated[int, Ge(0), Le(1_000)] = 0
    """Side in tokens of the windows that blocks attend in (ViTDet: 14); 0: all blocks attend to all tokens,
    and the class token stays."""
    global_blocks: tuple[Block, ...] = ()
    """0-based blocks that attend to all tokens beside `window_size` (ViTDet: 2, 5, 8, 11)."""
    relative_positions: bool = True
    """Whether blocks have relative positions beside `window_size`."""

    strides: Widths = (4, 8, 16, 32)
    """Strides of the pyramid's levels in pixels, finest first: the patch size times powers of two."""
    channels: Size = 256
    """Width of every level and of the RPN."""
    extra_level: bool = True
    """Add a level for the RPN alone by subsampling the last one."""

    anchor_sizes: tuple[tuple[PositiveFloat, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    """Sides of the anchors in pixels, per level (including the extra one)."""
    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Len(1)] = (0.5, 1.0, 2.0)
    """Height / width of the anchors, the same at all levels."""
    rpn_convs: Size = 2
    """3x3 convolutions of the RPN before its two predictors."""
    rpn_pre_nms: tuple[Size, Size] = (2000, 1000)
    """Best anchors per level that enter non-maximum suppression, in training and in evaluation."""
    rpn_post_nms: tuple[Size, Size] = (1000, 1000)
    """Proposals per image kept after non-maximum suppression, in training and in evaluation."""
    rpn_nms_iou: Fraction = 0.7
    """Overlap above which the weaker of two proposals is suppressed."""
    rpn_fg_iou: Fraction = 0.7
    """Overlap with an object from which an anchor is a positive example."""
    rpn_bg_iou: Fraction = 0.3
    """Overlap below which an anchor is a negative example."""
    rpn_batch: Size = 256
    """Anchors per image in the RPN's loss."""

    roi_batch: Size = 512
    """Proposals per image in the heads' loss, at most a quarter of them positive."""
    roi_fg_iou: Fraction = 0.5
    """Overlap with an object from which a proposal is positive; below, it is background."""
    sampling_ratio: Annotated[int, Ge(0), Le(1_000)] = 0
    """Samples per bin and axis in RoIAlign; 0 adapts to the size of the proposal."""
    canonical_scale: PositiveFloat = 224
    """Side in pixels of the proposals that are pooled at stride 16 (FPN paper, equation 1)."""
    box_resolution: Size = 7
    """Side of RoIAlign's output for the box head, in bins."""
    box_convs: tuple[Size, ...] = (256, 256, 256, 256)
    """Channels of the box head's 3x3 convolutions, each with LayerNorm."""
    box_units: Widths = (1024,)
    """Units of the box head's fully connected layers."""
    mask_resolution: Size = 14
    """Side of RoIAlign's output for the mask head; masks are predicted at twice this resolution."""
    mask_convs: Widths = (256, 256, 256, 256)
    """Channels of the mask head's 3x3 convolutions, each with LayerNorm; its deconvolution has the last."""
    predictor_stds: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.01, 0.001, 0.001)
    """Standard deviations of the initial weights that predict classes, boxes and masks."""

    score_threshold: Fraction = 0.05
    """Detections with a lower score are dropped."""
    nms_iou: Fraction = 0.5
    """Overlap above which the weaker of two detections of one class is dropped."""
    detections: Size = 100
    """Maximum number of detections per image."""

    def __post_init__(self) -> None:
        if self.global_blocks and not self.window_size:
            raise ValueError("global_blocks needs window_size: without it all blocks are global")
        levels = len(self.strides) + self.extra_level
        if len(self.anchor_sizes) != levels:
            raise ValueError(
                f"anchor_sizes has {len(self.anchor_sizes)} entries, the pyramid {levels} levels; "
                "give one entry per level"
            )


@dataclass(frozen=True, kw_only=True)
class UPerNetSettings(Settings):
    """UperNet on a plain transformer; defaults: mmsegmentation, `configs/mae/mae-base_upernet`."""

    taps: tuple[Block, Block, Block, Block] = (3, 5, 7, 11)
    """0-based blocks; their tokens become the four levels of the pyramid."""
    strides: tuple[Size, Size, Size, Size] = (4, 8, 16, 32)
    """Strides of the levels in pixels, finest first: the patch size times powers of two."""
    channels: Size = 768
    """Width of the decoder."""
    dropout: Share = 0.1
    """Dropout of whole channels before each classifying convolution."""
    auxiliary_channels: Size = 256
    """Width of the auxiliary head, a small FCN on the third level."""
    auxiliary_weight: Annotated[float, Ge(0), Le(1_000)] = 0.4
    """Weight of the auxiliary head's loss; 0 leaves the head out."""
    classifier_std: PositiveFloat = 0.01
    """Standard deviation of the initial weights of each classifying convolution."""
    class_weights: tuple[Annotated[float, Ge(0), Le(1_000_000)], ...] | None = None
    """Weight of each class in the cross-entropy; null: 1 each."""
    window_stride: Size = 341
    """Step in pixels at which a window of the training crop's size slides over an image in evaluation."""
