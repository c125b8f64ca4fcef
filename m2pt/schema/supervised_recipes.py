"""Recipe files of supervised pretrainings: a classifier of one modality, of which the encoder is kept."""

from pydantic import model_validator

from m2pt.schema.kept_epochs import KeptEpochs
from m2pt.schema.recipes import (
    AudioAugmentation,
    ClassifierSettings,
    ImageAugmentation,
    Mix,
    PointcloudAugmentation,
    VideoAugmentation,
)


class SupervisedPretraining(KeptEpochs):
    """A classifier's training, whatever the modality."""

    model: ClassifierSettings = ClassifierSettings()


class ImageSupervised(SupervisedPretraining):
    """One label per image."""

    mix: Mix = Mix()
    augmentation: ImageAugmentation = ImageAugmentation()


class VideoSupervised(SupervisedPretraining):
    """One label per video."""

    mix: Mix = Mix()
    augmentation: VideoAugmentation = VideoAugmentation()


class PointcloudSupervised(SupervisedPretraining):
    """One label per object."""

    mix: Mix = Mix()
    augmentation: PointcloudAugmentation = PointcloudAugmentation()

    @model_validator(mode="after")
    def _clouds_are_not_mixed(self) -> "PointcloudSupervised":
        if self.mix.mixup or self.mix.cutmix:
            raise ValueError("mix.mixup and mix.cutmix mix pictures; give smoothing alone for point clouds")
        return self


class AudioSupervised(SupervisedPretraining):
    """Several labels per sound, whose spectrograms are not mixed."""

    augmentation: AudioAugmentation = AudioAugmentation()


SUPERVISED: dict[str, type[SupervisedPretraining]] = {
    "image": ImageSupervised,
    "video": VideoSupervised,
    "audio": AudioSupervised,
    "pointcloud": PointcloudSupervised,
}
