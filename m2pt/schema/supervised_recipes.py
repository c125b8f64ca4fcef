"""Recipe files of supervised pretrainings: a classifier of one modality, of which the encoder is kept."""

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


class AudioSupervised(SupervisedPretraining):
    """Several labels per sound, whose spectrograms are not mixed."""

    augmentation: AudioAugmentation = AudioAugmentation()


SUPERVISED: dict[str, type[SupervisedPretraining]] = {
    "image": ImageSupervised,
    "video": VideoSupervised,
    "audio": AudioSupervised,
    "pointcloud": PointcloudSupervised,
}
