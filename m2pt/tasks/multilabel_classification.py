"""Multi-label classification: binary cross-entropy, mean average precision, and top-1 accuracy."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError


class MultilabelClassification:
    """Every class is a yes or no of its own; a batch is inputs and multi-hot labels (B, `num_classes`).

    Labels may be soft in training, such as those of mixed clips (see `m2pt.datasets.audioset`).
    """

    collate = None
    """Samples are stacked as torch does it."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def loss(self, model: nn.Module, batch: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the binary cross-entropy, mean over clips and classes, and nothing more to log.

        Raises:
            InputError: labels are not multi-hot.
        """
        inputs, labels = batch
        if labels.shape[1:] != (self.num_classes,):
            raise InputError(
                f"multi-label classification needs multi-hot labels (batch, {self.num_classes}), and this "
                f"dataset gives labels of shape {tuple(labels.shape)}: choose one of layout audioset"
            )
        return functional.binary_cross_entropy_with_logits(model(inputs), labels), {}

    def predict(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Return logits (B, num_classes)."""
        return model(batch[0])

    def measure(self, model: nn.Module, batch: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return logits and labels: mean average precision ranks all clips at once."""
        return self.predict(model, batch).cpu(), batch[1].cpu()

    def summarize(self, measured: Sequence[tuple[Tensor, Tensor]], dataset: Any) -> dict[str, float]:
        """Return, in percent over all clips, `map` and `top1`.

        AudioSet's own metric is `map` (see `mean_average_precision`). `top1` is the share of clips whose
        highest-scoring class is one of their labels.

        Raises:
            InputError: there are no clips.
        """
        if not measured:
            raise InputError("there is nothing to evaluate: the validation split is empty")
        all_scores, all_labels = (torch.cat(values) for values in zip(*measured, strict=True))
        return {
            "map": 100 * mean_average_precision(all_scores, all_labels),
            "top1": 100 * all_labels.gather(1, all_scores.argmax(dim=1, keepdim=True)).mean().item(),
        }


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Return the unweighted mean over the classes of their average precision, scikit-learn's "macro" average.

    Average precision is the sum over the distinct scores, from the highest, of precision times the gain in
    recall: clips of equal score enter together, in whichever order they come. As in scikit-learn, which warns
    of it, a class without a positive clip counts 0 (`m2pt data check` accepts no list with such a class).

    Args:
        scores: (N, C).
        labels: zeros and ones (N, C).
    """
    from sklearn.metrics import average_precision_score  # a second of import, which training does not need

    return float(average_precision_score(labels.int().numpy(), scores.float().numpy(), average="macro"))
