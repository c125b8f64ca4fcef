"""The loss of single-label classification, of images and of video."""

from collections.abc import Sequence
from typing import Any

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

        Inputs are (B, ..., H, W). CutMix's box is the same in all frames of a clip.

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
        # timm cuts axes 2 and 3, which are height and width once the frames of a clip are channels
        mixed, targets = self.mix(inputs.flatten(1, -3), labels)
        return self.soft_cross_entropy(model(mixed.view_as(inputs)), targets), {}
