"""What the recipes of all pretrainings have in common."""

from pydantic import model_validator

from m2pt.schema.base import Strict, no_duplicates
from m2pt.schema.ranges import Epoch
from m2pt.training.settings import TrainingSettings


class KeptEpochs(Strict):
    """A training, and epochs whose weights are saved beside the final ones.

    So a study of how good an auxiliary must be never repeats a pretraining.
    """

    training: TrainingSettings
    keep_epochs: tuple[Epoch, ...] = ()

    @model_validator(mode="after")
    def _kept_epochs_happen(self) -> "KeptEpochs":
        for epoch in self.keep_epochs:
            if epoch > (self.training.epochs or 0):
                raise ValueError(
                    f"keep_epochs: epoch {epoch} is never reached (epochs: {self.training.epochs})"
                )
        no_duplicates("keep_epochs", self.keep_epochs)
        return self
