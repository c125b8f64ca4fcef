"""Classification with one label per sample: loss with mixup and CutMix, top-1 and top-5 accuracy."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

from m2pt.errors import InputError
from m2pt.models.bodies import build_body_classifier

VIEWS_NDIM = 6
"""Axes of a batch of clips in several views, (B, V, 3, T, H, W); inputs of any other kind have fewer."""


class Classification:
    """One label for each image, video, sound or object.

    A batch is inputs (B, ...), or views of videos (B, V, 3, T, H, W), and integer labels (B,).

    Args:
        num_classes: number of classes.
        mix: keyword arguments of `ClassificationLoss`.
    """

    def __init__(self, num_classes: int, **mix: float) -> None:
        self.num_classes = num_classes
        self.loss = ClassificationLoss(num_classes, **mix)

    @classmethod
    def from_recipe(cls, num_classes: int, recipe: Mapping[str, Any]) -> Self:
        """Build the task from a recipe for `num_classes` classes."""
        return cls(num_classes, **recipe["mix"])

    @staticmethod
    def initial_losses(num_classes: int, recipe: Mapping[str, Any], batch: Any) -> dict[str, float]:
        """Return the loss of logits 0: ln C, for mixed and smoothed labels too, since these sum to 1."""
        return {"loss": math.log(num_classes)}

    def build_model(self, architecture: Mapping[str, Any], **settings: Any) -> nn.Module:
        """Build the target; see `build_body_classifier`."""
        return build_body_classifier(architecture, **settings)

    @staticmethod
    def collate(samples: Iterable[Any]) -> Any:
        """Stack samples; a list of samples, drawn from one video by repeated sampling, is flattened first.

        The batch that the model and mixup receive is then `samples` times the recipe's `batch_size`. As in
        VideoMAE, the rule lr = blr * batch / 256 counts videos, not their repetitions.
        """
        flat = []
        for sample in samples:
            flat += sample if isinstance(sample, list) else [sample]
        return default_collate(flat)

    def predict(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Return logits (B, num_classes), or (B, V, num_classes) for views."""
        inputs = batch[0]
        if inputs.dim() < VIEWS_NDIM:
            return model(inputs)
        return model(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])

    def measure(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Count the correct predictions; see `count_correct`.

        The score of a video is the softmax averaged over its views (VideoMAE). Averaging logits instead would
        give confident views more weight.
        """
        scores = self.predict(model, batch)
        if scores.dim() == 3:
            scores = scores.softmax(dim=-1).mean(dim=1)
        return count_correct(scores, batch[1]).cpu()

    def summarize(self, measured: Sequence[Tensor], dataset: Any) -> dict[str, float]:
        """Return the accuracy over all samples in percent: top1, and top5 for more than five classes.

        Raises:
            InputError: there are no samples.
        """
        return accuracy(measured, self.num_classes)


class ClassificationLoss:
    """Cross-entropy with label smoothing, mixup and CutMix as in MAE's finetuning (timm's `Mixup`).

    timm draws from numpy's global generator, which the training loop seeds for every step.

    Args:
        num_classes: number of classes.
        mixup: alpha of mixup's Beta distribution; 0 turns it off.
        cutmix: alpha of CutMix's; 0 turns it off.
        switch_prob: probability of CutMix in a batch when both are on.
        smoothing: label smoothing.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mixup: float,
        cutmix: float,
        switch_prob: float,
        smoothing: float,
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

        Inputs to be mixed are (B, ..., H, W). CutMix uses the same box for all frames of a clip.

        Raises:
            InputError: a batch to be mixed has an odd size.
        """
        inputs, labels = batch
        if self.mix is None:
            return functional.cross_entropy(model(inputs), labels, label_smoothing=self.smoothing), {}
        if len(inputs) % 2:
            raise InputError(
                f"mixup and cutmix need batches of even size, not {len(inputs)}: change batch_size"
            )
        # timm cuts axes 2 and 3, which are height and width once the frames of a clip are channels
        mixed, targets = self.mix(inputs.flatten(1, -3), labels)
        return self.soft_cross_entropy(model(mixed.view_as(inputs)), targets), {}


def count_correct(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the numbers of (top-1 hits, top-5 hits, samples) as a tensor, to be summed over batches."""
    best = scores.topk(min(5, scores.shape[1]), dim=1).indices
    hits = best == labels.unsqueeze(1)
    return torch.stack([hits[:, 0].sum(), hits.sum(), hits.new_tensor(len(labels), dtype=torch.long)])


def accuracy(counts: Sequence[Tensor], num_classes: int) -> dict[str, float]:
    """Return the accuracy in percent, given the result of `count_correct` for each batch.

    Returns:
        top1, and top5 if there are more than five classes.

    Raises:
        InputError: there are no samples.
    """
    if not counts:
        raise InputError("there is nothing to evaluate: the validation split is empty")
    top1, top5, samples = torch.stack(list(counts)).sum(dim=0).tolist()
    metrics = {"top1": 100 * top1 / samples}
    if num_classes > 5:
        metrics["top5"] = 100 * top5 / samples
    return metrics
