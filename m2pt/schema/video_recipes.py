"""Recipe file of the video target."""

from typing import Annotated

from pydantic import Field

from m2pt.schema.base import Strict
from m2pt.schema.ranges import AreaRange, Fraction, Range, Strength
from m2pt.schema.recipes import ClassifierSettings, Mix
from m2pt.training.settings import TrainingSettings

Views = Annotated[int, Field(ge=1, le=100)]


class ClipAugmentation(Strict):
    """Random resized crop (area and aspect range), flip, RandAugment string of timm, random erasing.

    Each treats all frames of a clip alike. `samples` views of a clip are made from one decoding; neither
    `batch_size` nor the learning rate that follows from it counts them.
    """

    scale: AreaRange = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    hflip: Fraction = 0.5
    auto_augment: Annotated[str, Field(pattern=r"^rand(-[\w.-]*)?$", max_length=200)] | None = None
    color_jitter: Strength | None = None
    reprob: Fraction = 0.0
    samples: Views = 1


class MultiView(Strict):
    """Views of a video whose softmax is averaged: clips spread over its time, by crops over its frames."""

    clips: Views = 5
    crops: Views = 3


class VideoFinetuning(Strict):
    """Video classification."""

    training: TrainingSettings
    model: ClassifierSettings = ClassifierSettings()
    mix: Mix = Mix()
    augmentation: ClipAugmentation = ClipAugmentation()
    evaluation: MultiView = MultiView()
