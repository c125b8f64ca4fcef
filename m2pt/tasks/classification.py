"""Single-label classification: the finetuning loss, accuracy, and how far two models' logits differ."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError


class ClassificationLoss:
    """Cross-entropy with label smoothing, mixup and CutMix as in MAE's finetuning (timm's `Mixup`).

    timm draws from numpy's global generator, which the training loop seeds for every step.

    Args:
        num_classes: number of classes.
        mixup: alpha of mixup's Beta distribution; 0 turns it off.
        cutmix: alpha of CutMix's; 0 turns it off.
        switch_prob: probability of CutMix in a batch, where both are on.
        smoothing: label smoothing.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        switch_prob: float = 0.5,
        smoothing: float = 0.0,
    ) -> None:
        self.smoothing = smoothing
        self.mix: Mixup | None = None
        if mixup > 0 or cutmix > 0:
            self.mix = Mixup(
                mixup_alpha=mixup,
                cutmix_alpha=cutmix,
                switch_prob=switch_prob,
                label_smoothing=smoothing,
                num_classes=num_classes,
            )
        self.soft_cross_entropy = SoftTargetCrossEntropy()

    def __call__(self, model: nn.Module, batch: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch (inputs, integer labels (B,)) and nothing more to log.

        Raises:
            InputError: a batch of odd size is to be mixed.
        """
        inputs, labels = batch
        if self.mix is None:
            return functional.cross_entropy(model(inputs), labels, label_smoothing=self.smoothing), {}
        if len(inputs) % 2:
            raise InputError(
                f"mixup and cutmix need batches of even size, not {len(inputs)}: change batch_size"
            )
        inputs, targets = self.mix(inputs, labels)
        return self.soft_cross_entropy(model(inputs), targets), {}


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Count hits: a tensor of (top-1 hits, top-5 hits, samples), which sums over batches and processes."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == labels.unsqueeze(1)
    return torch.stack([hits[:, 0].sum(), hits.sum(), hits.new_tensor(len(labels), dtype=torch.long)])


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Iterable[Sequence[Any]], device: torch.device) -> dict[str, float]:
    """Accuracy over all samples of `loader`, in percent.

    Returns:
        top1, and top5 if there are more than five classes.

    Raises:
        InputError: there are no samples.
    """
    model.eval()
    total = torch.zeros(3, dtype=torch.long, device=device)
    num_classes = 0
    for inputs, labels in loader:
        logits = model(inputs.to(device))
        num_classes = logits.shape[1]
        total += count_correct(logits, labels.to(device))
    top1, top5, samples = total.tolist()
    if not samples:
        raise InputError("there is nothing to evaluate: the validation split is empty")
    metrics = {"top1": 100 * top1 / samples}
    if num_classes > 5:
        metrics["top5"] = 100 * top5 / samples
    return metrics


@torch.inference_mode()
def logits_difference(
    one: nn.Module, other: nn.Module, loader: Iterable[Sequence[Any]], device: torch.device
) -> float:
    """Largest difference between two models' logits over `loader`, relative to the largest logit of `one`.

    A merged and an unmerged model differ by float32 rounding: not at all with the same kernels.
    """
    one.eval()
    other.eval()
    difference = largest = torch.zeros((), device=device)
    for inputs, _ in loader:
        moved = inputs.to(device)
        logits = one(moved)
        difference = torch.maximum(difference, (logits - other(moved)).abs().max())
        largest = torch.maximum(largest, logits.abs().max())
    return (difference / largest).item()
