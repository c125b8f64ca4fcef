"""Image classification as a target task: the finetuning loss and accuracy."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from m2pt.tasks.accuracy import accuracy, count_correct
from m2pt.tasks.classification_loss import ClassificationLoss


class Classification:
    """One label for each input; `mix` are the arguments of `ClassificationLoss`."""

    collate = None

    def __init__(self, num_classes: int, **mix: float) -> None:
        self.num_classes = num_classes
        self.loss = ClassificationLoss(num_classes, **mix)

    def predict(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Logits (B, num_classes) of a batch (inputs, labels)."""
        return model(batch[0])

    def measure(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Count the hits; see `count_correct`."""
        return count_correct(self.predict(model, batch), batch[1]).cpu()

    def summarize(self, measured: Sequence[Tensor], dataset: Any) -> dict[str, float]:
        """`top1`, and `top5` if there are more than five classes, in percent over all samples.

        Raises:
            InputError: there are no samples.
        """
        return accuracy(measured, self.num_classes)
