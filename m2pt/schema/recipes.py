"""Recipe files: the hyper-parameters of one training, each with its source in a comment of the YAML."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt

from m2pt.schema.base import Strict
from m2pt.schema.kept_epochs import KeptEpochs
from m2pt.training.settings import TrainingSettings

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]:g} comes first, then the upper one {bounds[1]:g}")
    return bounds


Range = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ascending)
]
"""Lower and upper bound of a random factor."""


class ImageAugmentation(Strict):
    """Random resized crop (area and aspect range), flip, RandAugment string of timm, random erasing."""

    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    hflip: Fraction = 0.5
    auto_augment: str | None = None
    color_jitter: NonNegativeFloat | None = None
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
    translate: NonNegativeFloat = 0.2


class DetectionAugmentation(Strict):
    """Large-scale jitter of the image before a crop of fixed size, and flip."""

    scale: Range = (1.0, 1.0)
    hflip: Fraction = 0.5


class SegmentationAugmentation(Strict):
    """Random scale, crop in which no class covers more than `cat_max_ratio`, flip, colour jitter."""

    scale: Range = (1.0, 1.0)
    hflip: Fraction = 0.5
    cat_max_ratio: Fraction = 1.0
    color_jitter: NonNegativeFloat | None = None


class Decoder(Strict):
    """Decoder of a masked autoencoder; `windowed` is AudioMAE's local attention."""

    dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt
    kind: Literal["global", "windowed"] = "global"


class Pretraining(KeptEpochs):
    """Masked autoencoding of one modality."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)]
    decoder: Decoder
    drop_path: Fraction = 0.0
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
    drop_path: Fraction = 0.0


class Mix(Strict):
    """Mixup, CutMix and label smoothing (timm)."""

    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    switch_prob: Fraction = 0.5
    smoothing: Fraction = 0.0


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
