"""What every target task offers, and how far two models differ on one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn


class TargetTask(Protocol):
    """Loss and metric of a task on which a target is finetuned."""

    @property
    def collate(self) -> Callable[[list[Any]], Any] | None:
        """Makes a batch of samples; None stacks them as torch does."""
        ...

    @property
    def loss(self) -> Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]:
        """Maps (model, batch on the device) to the mean loss and further scalars to log."""
        ...

    def predict(self, model: nn.Module, batch: Any) -> Tensor:
        """What the model says of a batch on its device."""
        ...

    def measure(self, model: nn.Module, batch: Any) -> Any:
        """What the metric needs to know of a batch on the model's device; on the CPU, and small."""
        ...

    def summarize(self, measured: Sequence[Any], dataset: Any) -> dict[str, float]:
        """Metrics in percent over all batches of a dataset, in order, from what was measured of each.

        Raises:
            InputError: there is nothing to evaluate.
        """
        ...


@torch.inference_mode()
def largest_difference(
    task: TargetTask, one: nn.Module, other: nn.Module, loader: Iterable[Any], device: torch.device
) -> float:
    """Largest difference between two models' predictions over `loader`, relative to the largest of `one`.

    A merged and an unmerged model differ by float32 rounding: not at all with the same kernels.
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
