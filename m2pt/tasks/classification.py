"""Image classification as a target task: the finetuning loss and accuracy."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.tasks.accuracy import accuracy
from m2pt.tasks.classification_loss import ClassificationLoss


class Classification:
    """One label for each input; `mix` are the arguments of `ClassificationLoss`."""

    collate = None

    def __init__(self, num_classes: int, **mix: float) -> None:
        self.loss = ClassificationLoss(num_classes, **mix)

    def predict(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Logits (B, num_classes) of a batch (inputs, labels)."""
        return model(batch[0])

    @torch.inference_mode()
    def evaluate(
        self, model: nn.Module, loader: Iterable[Sequence[Any]], device: torch.device
    ) -> dict[str, float]:
        """`top1`, and `top5` if there are more than five classes, in percent over all samples.

        Raises:
            InputError: there are no samples.
        """
        model.eval()
        return accuracy((model(inputs.to(device)), labels.to(device)) for inputs, labels in loader)
