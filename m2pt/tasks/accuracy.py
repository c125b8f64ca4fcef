"""Top-1 and top-5 accuracy."""

from collections.abc import Sequence

import torch
from torch import Tensor

from m2pt.errors import InputError


def count_correct(scores: Tensor, labels: Tensor) -> Tensor:
    """Count hits: a tensor of (top-1 hits, top-5 hits, samples), which sums over batches."""
    best = scores.topk(min(5, scores.shape[1]), dim=1).indices
    hits = best == labels.unsqueeze(1)
    return torch.stack([hits[:, 0].sum(), hits.sum(), hits.new_tensor(len(labels), dtype=torch.long)])


def accuracy(counted: Sequence[Tensor], num_classes: int) -> dict[str, float]:
    """Accuracy in percent from what `count_correct` says of each batch.

    Returns:
        top1, and top5 if there are more than five classes.

    Raises:
        InputError: there are no samples.
    """
    if not counted:
        raise InputError("there is nothing to evaluate: the validation split is empty")
    top1, top5, samples = torch.stack(list(counted)).sum(dim=0).tolist()
    metrics = {"top1": 100 * top1 / samples}
    if num_classes > 5:
        metrics["top5"] = 100 * top5 / samples
    return metrics
