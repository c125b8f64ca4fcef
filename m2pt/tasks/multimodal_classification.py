"""Joint classification of several modalities: the method's loss, accuracies in all and of each modality."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.agm import BalancingError, mono_modal_logits
from m2pt.datasets.padded import collate
from m2pt.errors import InputError, RunError
from m2pt.tasks.target import TargetTask

ALL = ""
"""Key of the joint logits among those of the modalities."""


class JointTask(TargetTask, Protocol):
    """A task whose model is a `BalancingMethod` in training, and the classifier in it afterwards."""

    def measure(self, model: nn.Module, batch: Any) -> "Measured":
        """Return the sums that metrics and `m2pt.agm.Validation` need of a batch."""
        ...


@dataclass(frozen=True)
class Measured:
    """Sums over a batch: its samples, and the correct predictions and cross-entropies of each classifier.

    `correct` and `loss` have the joint classifier under `ALL` and the modalities under their names.
    """

    samples: int
    correct: Mapping[str, int]
    loss: Mapping[str, float]


@contextmanager
def method_errors() -> Iterator[None]:
    """Turn what a method says of a training, such as a score that is NaN, into a `RunError`.

    Raises:
        RunError: the method cannot go on.
    """
    try:
        yield
    except BalancingError as error:
        raise RunError(str(error)) from error


class MultimodalClassification:
    """One label for each sample, from inputs of several modalities.

    A batch is inputs by modality, each a tensor (B, ...) or padded sequences with their lengths, and integer
    labels (B,).
    """

    @classmethod
    def from_recipe(cls, num_classes: int, recipe: Mapping[str, Any]) -> Self:
        """Build the task; it has no settings."""
        return cls()

    @property
    def collate(self) -> Callable[[list[Any]], Any]:
        """Function that makes a batch; it pads sequences."""
        return collate

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a method, which may be wrapped in DDP, and nothing more to log.

        What the method logs is complete only before the optimizer's step: see `m2pt.selection`.
        """
        inputs, labels = batch
        method: Any = getattr(model, "module", model)
        with method_errors():
            return model({name: inputs[name] for name in method.modalities}, labels), {}

    def predict(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the joint logits (B, num_classes) of a classifier."""
        inputs, _ = batch
        names: Any = model.modalities
        return model({name: inputs[name] for name in names})

    def measure(self, model: nn.Module, batch: Any) -> Measured:
        """Measure the joint logits and, of several modalities, the mono-modal responses that they consist of.

        The responses are Shapley attributions with the empty set left out (AGM): they sum to the logits.
        """
        inputs, labels = batch
        names: Any = model.modalities
        responses = mono_modal_logits(model, {name: inputs[name] for name in names})
        logits = {ALL: torch.stack(list(responses.values())).sum(0)}
        logits |= responses if len(responses) > 1 else {}
        correct = {name: int((each.argmax(1) == labels).sum()) for name, each in logits.items()}
        loss = {
            name: float(functional.cross_entropy(each, labels, reduction="sum"))
            for name, each in logits.items()
        }
        return Measured(len(labels), correct, loss)

    def summarize(self, measured: Sequence[Measured], dataset: Any) -> dict[str, float]:
        """Return the accuracy in percent: `top1` of all modalities, `top1_MODALITY` of each response.

        Raises:
            InputError: there are no samples.
        """
        samples = sum(each.samples for each in measured)
        if not samples:
            raise InputError("there is nothing to evaluate: the split is empty")
        metrics = {}
        for name in measured[0].correct:
            correct = sum(each.correct[name] for each in measured)
            metrics["top1" if name == ALL else f"top1_{name}"] = 100 * correct / samples
        return metrics
