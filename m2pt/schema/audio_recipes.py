"""Recipe file of the audio target."""

from typing import Annotated

from pydantic import Field

from m2pt.schema.base import Strict
from m2pt.schema.ranges import Fraction, Share
from m2pt.schema.recipes import AudioAugmentation, ClassifierSettings
from m2pt.training.settings import TrainingSettings

Longest = Annotated[int, Field(ge=0, le=1_000_000)]


class TokenDrop(Strict):
    """Shares of the time steps and of the frequency rows of tokens that training leaves out (AudioMAE)."""

    time: Share = 0.0
    frequency: Share = 0.0


class SoundClassifier(ClassifierSettings):
    """A classifier that may drop tokens in training."""

    token_drop: TokenDrop = TokenDrop()


class MultilabelAugmentation(AudioAugmentation):
    """Also mixup (probability) and SpecAugment's masks (the longest, in frames and in mel bins)."""

    mixup: Fraction = 0.0
    time_mask: Longest = 0
    frequency_mask: Longest = 0


class MultilabelFinetuning(Strict):
    """Classification of sounds that have several labels each."""

    training: TrainingSettings
    model: SoundClassifier = SoundClassifier()
    augmentation: MultilabelAugmentation = MultilabelAugmentation()
