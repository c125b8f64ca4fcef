"""Sizes of the models: the bodies, and how each modality becomes tokens."""

from pydantic import PositiveFloat, PositiveInt, model_validator

from m2pt.schema.base import Strict


class Backbone(Strict):
    """Sizes of the transformer blocks that all modalities share (ViT-Base: 768, 12, 12)."""

    dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt
    mlp_ratio: PositiveFloat = 4.0

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "Backbone":
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        return self


class ImageInput(Strict):
    """Side of the square input image in pixels."""

    image_size: PositiveInt


class ImageTokenizer(Strict):
    """Side of a square patch in pixels."""

    patch_size: PositiveInt


class ConvNeXt(Strict):
    """Sizes of the convolutional pair: blocks and channels of each of its four stages."""

    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    dims: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class Image(Strict):
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
        return self


class VideoInput(Strict):
    """Frames per clip, distance between two of them in the file, side of a frame in pixels."""

    frames: PositiveInt
    stride: PositiveInt
    image_size: PositiveInt


class VideoTokenizer(Strict):
    """A token is a cube of `tubelet_size` frames by `patch_size` by `patch_size` pixels."""

    patch_size: PositiveInt
    tubelet_size: PositiveInt = 2


class Video(Strict):
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
        return self


class AudioInput(Strict):
    """Log-mel filterbank of `frames` 10 ms steps, normalised as (x - mean) / (2 std); AudioSet's values."""

    frames: PositiveInt
    mel_bins: PositiveInt = 128
    sample_rate: PositiveInt = 16000
    mean: float = -4.2677393
    std: PositiveFloat = 4.5689974


class AudioTokenizer(Strict):
    """Side of a square patch of the spectrogram and the step between two patches (equal: no overlap)."""

    patch_size: PositiveInt
    stride: PositiveInt


class Audio(Strict):
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
        return self


class PointcloudInput(Strict):
    """Points drawn from each object."""

    points: PositiveInt


class PointcloudTokenizer(Strict):
    """A token is one of `groups` neighbourhoods of `group_size` points."""

    groups: PositiveInt
    group_size: PositiveInt
    hidden: PositiveInt = 128
    """Units of the mini-PointNet's first layer; 128 in Point-MAE."""


class Pointcloud(Strict):
    """How a point cloud becomes tokens."""

    input: PointcloudInput
    tokenizer: PointcloudTokenizer

    @model_validator(mode="after")
    def _enough_points(self) -> "Pointcloud":
        if max(self.tokenizer.groups, self.tokenizer.group_size) > self.input.points:
            raise ValueError("groups and group_size cannot exceed the number of points")
        return self


class TextInput(Strict):
    """Bytes in a window of text."""

    length: PositiveInt


class TextTokenizer(Strict):
    """A token is a byte: there is nothing to choose."""


class Text(Strict):
    """How a text becomes tokens."""

    input: TextInput
    tokenizer: TextTokenizer = TextTokenizer()


class Modalities(Strict):
    """One entry for each modality of the paper; text is ours."""

    image: Image
    video: Video
    audio: Audio
    pointcloud: Pointcloud
    text: Text | None = None
