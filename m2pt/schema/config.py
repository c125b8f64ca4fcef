"""The config file: what is run, on which data, at which size. See config/README.md."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from m2pt.schema.base import Strict

Modality = Literal["image", "video", "audio", "pointcloud"]
Layout = Literal["imagenet", "coco", "ade20k", "shapenet55", "audioset", "kinetics"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

MODALITY_OF_LAYOUT: dict[str, Modality] = {
    "imagenet": "image",
    "coco": "image",
    "ade20k": "image",
    "audioset": "audio",
    "kinetics": "video",
    "shapenet55": "pointcloud",
}


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


class Modalities(Strict):
    """One entry for each modality of the paper."""

    image: Image
    video: Video
    audio: Audio
    pointcloud: Pointcloud


class Miniature(Strict):
    """The dataset is built by `m2pt data build`; `sizes` are the keyword arguments of its builder."""

    seed: Seed = 0
    sizes: dict[str, Any] = Field(default_factory=dict)


class Dataset(Strict):
    """A dataset in one of the official layouts: yours at `root`, or a miniature built under results."""

    layout: Layout
    num_classes: PositiveInt
    root: str | None = None
    miniature: Miniature | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "Dataset":
        if (self.root is None) == (self.miniature is None):
            raise ValueError(
                "give root (the folder of your dataset) or miniature (how to build one), not both"
            )
        return self


class Encoder(Strict):
    """Blocks for a target's start or as an auxiliary: pretrained here, given as a file, or random."""

    modality: Modality
    dataset: Name | None = None
    pretrain: str | None = None
    file: str | None = None
    random: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> "Encoder":
        if sum((self.pretrain is not None, self.file is not None, self.random)) != 1:
            raise ValueError("give exactly one of pretrain (a recipe), file (a checkpoint) and random: true")
        if (self.pretrain is None) != (self.dataset is None):
            raise ValueError("a pretrained encoder needs pretrain and dataset, the others need neither")
        return self


class FinetuneRecipes(Strict):
    """Recipe files of a dataset: blocks finetuned (tune) or linear weights frozen (fix), by start."""

    pretrained_tune: str
    pretrained_fix: str
    scratch_tune: str
    scratch_fix: str


class Transfer(Strict):
    """How a dense task starts: from the merged finetuned model, or the pretrained one and its pathways."""

    recipe: str
    transfer_from: Literal["finetuned", "pretrained"] = "finetuned"
    freeze_backbone: bool = False


class Config(Strict):
    """A whole config file. It is complete by itself: nothing of another one shows through."""

    results: str = "results"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    pretrain_seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    threads: PositiveInt = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backbone: Backbone
    modalities: Modalities
    datasets: dict[Name, Dataset]
    encoders: dict[Name, Encoder]
    finetune: dict[Name, FinetuneRecipes]
    transfer: dict[Name, Transfer] = Field(default_factory=dict)
    tables: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_exist(self) -> "Config":
        for section, names in {
            **{f"encoders.{name}.dataset": [e.dataset] for name, e in self.encoders.items() if e.dataset},
            "finetune": list(self.finetune),
            "transfer": list(self.transfer),
        }.items():
            for name in names:
                if name not in self.datasets:
                    raise ValueError(
                        f"{section}: no dataset {name!r}; the datasets are {', '.join(self.datasets)}"
                    )
        for name, encoder in self.encoders.items():
            if (
                encoder.dataset
                and MODALITY_OF_LAYOUT[self.datasets[encoder.dataset].layout] != encoder.modality
            ):
                raise ValueError(
                    f"encoders.{name}: {encoder.dataset} is not a dataset of modality {encoder.modality}"
                )
        stems = [PurePosixPath(path).stem for path in self.tables]
        if len(set(stems)) != len(stems):
            raise ValueError("tables: two files have the same name")
        for what, seeds in (("seeds", self.seeds), ("pretrain_seeds", self.pretrain_seeds)):
            if len(set(seeds)) != len(seeds):
                raise ValueError(f"{what}: a seed stands twice")
        return self
