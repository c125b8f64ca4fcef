"""The interface of a target task, and the difference between two models' predictions on one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from m2pt.models.transformer import Encoder


class TargetTask(Protocol):
    """Loss and metrics of a task on which a target is finetuned."""

    @classmethod
    def from_recipe(cls, num_classes: int, recipe: Mapping[str, Any]) -> Self:
        """Build the task from a recipe for `num_classes` classes."""
        ...

    @property
    def collate(self) -> Callable[[list[Any]], Any] | None:
        """Function that makes a batch of samples; None stacks them with torch's `default_collate`."""
        ...

    @property
    def loss(self) -> Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]:
        """Function from (model, batch on the device) to the mean loss and further scalars to log."""
        ...

    def predict(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the model's raw outputs for a batch on its device."""
        ...

    def measure(self, model: nn.Module, batch: Any) -> Any:
        """Return the data that the metrics need of a batch on the model's device; small, on the CPU."""
        ...

    def summarize(self, measured: Sequence[Any], dataset: Any) -> dict[str, float]:
        """Return the metrics in percent over a dataset.

        Args:
            measured: the result of `measure` for each batch, in order.
            dataset: the dataset that was evaluated.

        Raises:
            InputError: there is nothing to evaluate.
        """
        ...


class FinetuneTask(TargetTask, Protocol):
    """A task that adds a head to a pretrained encoder."""

    def build_model(self, architecture: Mapping[str, Any], *, num_classes: int, **settings: Any) -> nn.Module:
        """Build the target with random weights.

        Args:
            architecture: modality, input, tokenizer and backbone, as for `m2pt.models.bodies.build_body`.
            num_classes: number of classes of the dataset.
            settings: the `model` of the recipe.

        Returns:
            A model with `blocks`, `pretrained_parts` (see `m2pt.models.exchange`) and `head`.
        """
        ...


class TransferTask(TargetTask, Protocol):
    """A task with a model built on top of an encoder."""

    def build_model(
        self,
        encoder: Encoder,
        *,
        num_classes: int,
        input: Mapping[str, Any],
        freeze_backbone: bool,
        **settings: Any,
    ) -> nn.Module:
        """Build the model around an encoder.

        Args:
            encoder: pretrained, possibly with pathways.
            num_classes: number of classes of the dataset.
            input: input settings of the architecture, such as `image_size`.
            freeze_backbone: whether to freeze the encoder's own weights.
            settings: the `model` of the recipe.
        """
        ...


@runtime_checkable
class StatesInitialLosses(Protocol):
    """A task that says where its losses start; `m2pt rehearse` compares. A task need not."""

    def initial_losses(self, num_classes: int, recipe: Mapping[str, Any], batch: Any) -> Mapping[str, float]:
        """Return the losses of a batch for a model that prefers no class: all logits are 0.

        Args:
            num_classes: of the dataset.
            recipe: of the training.
            batch: as `loss` takes it.

        Returns:
            By the names that `loss` logs; the sum of all is called `loss`. What does not follow from the
            task, such as the loss of predicted boxes, is left out.
        """
        ...


@torch.inference_mode()
def largest_difference(
    task: TargetTask, one: nn.Module, other: nn.Module, loader: Iterable[Any], device: torch.device
) -> float:
    """Return the largest difference of two models' predictions, relative to the largest prediction of `one`.

    A merged and an attached model differ by float32 rounding at most, and not at all with the same kernels.
    """
    one.eval()
    other.eval()
    difference = largest = torch.zeros((), device=device)
    for batch in loader:
        moved = send_to_device(batch, device)
        predicted = task.predict(one, moved)
        difference = torch.maximum(difference, (predicted - task.predict(other, moved)).abs().max())
        largest = torch.maximum(largest, predicted.abs().max())
    return (difference / largest).item()
