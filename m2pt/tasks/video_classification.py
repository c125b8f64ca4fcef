"""Classification of video: the finetuning loss on repeated samples, and accuracy over several views."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.data import default_collate

from m2pt.tasks.accuracy import accuracy, count_correct
from m2pt.tasks.classification_loss import ClassificationLoss


class VideoClassification:
    """One label per video; a batch is clips (B, 3, T, H, W), or views (B, V, 3, T, H, W), and labels (B,).

    Args:
        num_classes: number of classes.
        mix: keyword arguments of `ClassificationLoss`.
    """

    def __init__(self, num_classes: int, **mix: float) -> None:
        self.num_classes = num_classes
        self._loss = ClassificationLoss(num_classes, **mix)

    @staticmethod
    def collate(samples: Iterable[Any]) -> Any:
        """Stack samples; a list of samples, made of one video by repeated sampling, counts as so many.

        The batch of the model and of mixup then is `samples` times the `batch_size` of the recipe. The rule
        lr = blr * batch / 256 counts videos, not their repetitions, as VideoMAE's does.
        """
        flat = []
        for sample in samples:
            flat += sample if isinstance(sample, list) else [sample]
        return default_collate(flat)

    def loss(self, model: nn.Module, batch: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy of a batch of clips and nothing more to log; see `ClassificationLoss`."""
        return self._loss(model, batch)

    def predict(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Return logits (B, classes) of clips, or (B, V, classes) of views."""
        inputs = batch[0]
        if inputs.dim() == 5:
            return model(inputs)
        return model(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])

    def measure(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        """Count the hits among the videos; see `count_correct`.

        A video's score is the mean over its views of their softmax (VideoMAE; the mean of the logits would
        weigh a view by how sure of itself it is).
        """
        probabilities = self.predict(model, batch).softmax(dim=-1)
        scores = probabilities if probabilities.dim() == 2 else probabilities.mean(dim=1)
        return count_correct(scores, batch[1]).cpu()

    def summarize(self, measured: Sequence[Tensor], dataset: Any) -> dict[str, float]:
        """Return accuracy in percent over all videos: top1, and top5 above five classes.

        Raises:
            InputError: there are no videos.
        """
        return accuracy(measured, self.num_classes)
