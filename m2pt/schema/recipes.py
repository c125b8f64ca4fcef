"""Recipe files: the hyper-parameters of one training, each with its source in a comment of the YAML."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from m2pt.schema.base import Strict
from m2pt.schema.kept_epochs import KeptEpochs
from m2pt.schema.ranges import (
    AreaRange,
    Depth,
    Fraction,
    Label,
    PositiveFraction,
    Range,
    Share,
    Size,
    Strength,
)
from m2pt.training.settings import TrainingSettings


class ImageAugmentation(Strict):
    """Random resized crop (area and aspect range), flip, RandAugment string of timm, random erasing."""

    scale: AreaRange = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    hflip: Fraction = 0.5
    auto_augment: Label | None = None
    color_jitter: Strength | None = None
    reprob: Fraction = 0.0


class AudioAugmentation(Strict):
    """AudioMAE's `roll_magnitude`: turn the waveform by a random time, multiply it by Beta(10, 10) + 0.5."""

    roll_magnitude: bool = False


class VideoAugmentation(Strict):
    """Multi-scale crop: the side of the crop as fractions of the shorter side (VideoMAE)."""

    crop_scales: Annotated[tuple[PositiveFraction, ...], Field(min_length=1)] = (1.0, 0.875, 0.75, 0.66)
    hflip: Fraction = 0.0


class PointcloudAugmentation(Strict):
    """Random scale and shift of a whole object (Point-MAE)."""

    scale: Range = (2 / 3, 3 / 2)
    translate: Strength = 0.2


class DetectionAugmentation(Strict):
    """Large-scale jitter of the image before a crop of fixed size, and flip."""

    scale: Range = (1.0, 1.0)
    hflip: Fraction = 0.5


class SegmentationAugmentation(Strict):
    """Random scale, crop in which no class covers more than `cat_max_ratio`, flip, colour jitter."""

    scale: Range = (1.0, 1.0)
    hflip: Fraction = 0.5
    cat_max_ratio: Fraction = 1.0
    color_jitter: Strength | None = None


class Decoder(Strict):
    """Decoder of a masked autoencoder; `windowed` is AudioMAE's local attention."""

    dim: Size
    depth: Depth
    num_heads: Size
    kind: Literal["global", "windowed"] = "global"

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "Decoder":
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        return self


class Pretraining(KeptEpochs):
    """Masked autoencoding of one modality."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)]
    decoder: Decoder
    drop_path: Share = 0.0
    """Stochastic depth of the last block of encoder and decoder; Point-MAE alone has it in pretraining."""


class ImagePretraining(Pretraining):
    """MAE."""

    augmentation: ImageAugmentation = ImageAugmentation()


class VideoPretraining(Pretraining):
    """VideoMAE."""

    augmentation: VideoAugmentation = VideoAugmentation()


class AudioPretraining(Pretraining):
    """AudioMAE."""

    augmentation: AudioAugmentation = AudioAugmentation()


class PointcloudPretraining(Pretraining):
    """Point-MAE."""

    augmentation: PointcloudAugmentation = PointcloudAugmentation()


class ClassifierSettings(Strict):
    """What is put on the blocks, and their stochastic depth."""

    pool: Literal["avg", "token"] = "avg"
    head: Literal["linear", "batchnorm_linear"] = "linear"
    drop_path: Share = 0.0


class Mix(Strict):
    """Mixup, CutMix and label smoothing (timm)."""

    mixup: Strength = 0.0
    cutmix: Strength = 0.0
    switch_prob: Fraction = 0.5
    smoothing: Share = 0.0


class Finetuning(Strict):
    """Image classification."""

    training: TrainingSettings
    model: ClassifierSettings = ClassifierSettings()
    mix: Mix = Mix()
    augmentation: ImageAugmentation = ImageAugmentation()


PRETRAINING: dict[str, type[Pretraining]] = {
    "image": ImagePretraining,
    "video": VideoPretraining,
    "audio": AudioPretraining,
    "pointcloud": PointcloudPretraining,
}
