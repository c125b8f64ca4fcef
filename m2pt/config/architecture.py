"""Sizes of the models: the bodies, and how each modality becomes tokens."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from m2pt.config.strict import Strict
from m2pt.modalities.settings import NORM_EPS, POINTCLOUD_NORM_EPS
from m2pt.ranges import Depth, Epsilon, Factor, Size

MOST_TOKENS = 2**16


def check_tokens(count: int) -> None:
    """Make sure that attention over `count` tokens is feasible.

    Raises:
        ValueError: there are more than `MOST_TOKENS`.
    """
    if count > MOST_TOKENS:
        raise ValueError(
            f"{count} tokens are too many; at most {MOST_TOKENS} are possible: use larger patches or a "
            "smaller input"
        )


class Backbone(Strict):
    """Sizes of the transformer blocks that all modalities share (ViT-Base: 768, 12, 12)."""

    dim: Size
    depth: Depth
    num_heads: Size
    mlp_ratio: Factor = 4.0

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "Backbone":
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        if self.dim * self.mlp_ratio < 1:
            raise ValueError(f"mlp_ratio {self.mlp_ratio:g} gives no hidden unit at dim {self.dim}")
        return self


class Modality(Strict):
    """What the encoder of each modality may have of its own."""

    num_heads: Size | None = None
    """Attention heads of a block; null: those of `backbone`."""
    norm_eps: Epsilon = NORM_EPS
    """What the LayerNorms of encoder and decoder add to the variance; of no effect on a ConvNeXt."""


class ImageInput(Strict):
    """Side of the square input image in pixels."""

    image_size: Size


class ImageTokenizer(Strict):
    """Side of a square patch in pixels."""

    ADDED: ClassVar = ("distillation_token",)
    """Settings that came later: at their defaults a result is the same as without them."""

    patch_size: Size
    distillation_token: bool = False
    """Whether a second token precedes the patches, as in DeiT."""


class ConvNeXt(Strict):
    """Sizes of the convolutional pair: blocks and channels of each of its four stages."""

    depths: tuple[Depth, Depth, Depth, Depth]
    dims: tuple[Size, Size, Size, Size]


class Image(Modality):
    """How an image becomes tokens."""

    input: ImageInput
    tokenizer: ImageTokenizer

    @model_validator(mode="after")
    def _patches_fill_the_image(self) -> "Image":
        if self.input.image_size % self.tokenizer.patch_size:
            raise ValueError(
                f"image_size {self.input.image_size} is not a multiple "
                f"of patch_size {self.tokenizer.patch_size}"
            )
        check_tokens((self.input.image_size // self.tokenizer.patch_size) ** 2)
        return self


class VideoInput(Strict):
    """Frames per clip, distance between two of them in the file, side of a frame in pixels."""

    frames: Size
    stride: Size
    image_size: Size


class VideoTokenizer(Strict):
    """A token is a cube of `tubelet_size` frames by `patch_size` by `patch_size` pixels."""

    patch_size: Size
    tubelet_size: Size = 2


class Video(Modality):
    """How a clip becomes tokens."""

    input: VideoInput
    tokenizer: VideoTokenizer

    @model_validator(mode="after")
    def _cubes_fill_the_clip(self) -> "Video":
        if (
            self.input.image_size % self.tokenizer.patch_size
            or self.input.frames % self.tokenizer.tubelet_size
        ):
            raise ValueError("image_size must be a multiple of patch_size and frames one of tubelet_size")
        cubes = self.input.frames // self.tokenizer.tubelet_size
        check_tokens(cubes * (self.input.image_size // self.tokenizer.patch_size) ** 2)
        return self


class AudioInput(Strict):
    """Log-mel filterbank of `frames` 10 ms steps, normalized as (x - mean) / (2 std); AudioSet's values."""

    frames: Size
    mel_bins: Size = 128
    sample_rate: Size = 16000
    mean: Annotated[float, Field(ge=-100, le=100)] = -4.2677393
    std: Factor = 4.5689974


class AudioTokenizer(Strict):
    """Side of a square patch of the spectrogram and the step between two patches (equal: no overlap)."""

    ADDED: ClassVar = ("ast",)
    """Settings that came later: at their defaults a result is the same as without them."""

    patch_size: Size
    stride: Size
    ast: bool = False
    """Whether tokens are AST's: a distillation token too, and patches (frequency, time) in that order."""


class Audio(Modality):
    """How a sound becomes tokens."""

    input: AudioInput
    tokenizer: AudioTokenizer

    @model_validator(mode="after")
    def _patches_leave_no_gap(self) -> "Audio":
        patch, stride = self.tokenizer.patch_size, self.tokenizer.stride
        for name, size in (("frames", self.input.frames), ("mel_bins", self.input.mel_bins)):
            if size < patch or stride > patch or (stride == patch and size % patch):
                raise ValueError(
                    f"{name} {size} cannot be cut into patches of {patch} at stride {stride}; "
                    f"give a multiple of {patch}, or a smaller stride"
                )
        check_tokens((self.input.frames // stride) * (self.input.mel_bins // stride))
        return self


class PointcloudInput(Strict):
    """Points drawn from each object."""

    points: Size


class PointcloudTokenizer(Strict):
    """A token is one of `groups` neighborhoods of `group_size` points."""

    groups: Size
    group_size: Size
    hidden: Size = 128
    """Units of the mini-PointNet's first layer; 128 in Point-MAE."""
    skip_origin: bool = False
    """Never choose a center within |p|² <= 1e-3 of the origin, as Point-MAE's CUDA sampling does."""


class Pointcloud(Modality):
    """How a point cloud becomes tokens."""

    input: PointcloudInput
    tokenizer: PointcloudTokenizer
    norm_eps: Epsilon = POINTCLOUD_NORM_EPS

    @model_validator(mode="after")
    def _enough_points(self) -> "Pointcloud":
        if max(self.tokenizer.groups, self.tokenizer.group_size) > self.input.points:
            raise ValueError("groups and group_size cannot exceed the number of points")
        check_tokens(self.tokenizer.groups)
        return self


class TextInput(Strict):
    """Bytes in a window of text."""

    length: Size


class TextTokenizer(Strict):
    """A token is a byte; there are no settings."""


class Text(Modality):
    """How a text becomes tokens."""

    input: TextInput
    tokenizer: TextTokenizer = TextTokenizer()

    @model_validator(mode="after")
    def _window_is_not_too_long(self) -> "Text":
        check_tokens(self.input.length)
        return self
