"""Selection on the validation split: the method's part in a training, and the weights of the best epoch."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, distributed, nn

from m2pt.agm import BalancingMethod, ConditionalClipping, Validation
from m2pt.agm.modes import evaluation_mode
from m2pt.errors import InputError
from m2pt.tasks.evaluation import in_order
from m2pt.tasks.multimodal_classification import ALL, JointTask, Measured, method_errors
from m2pt.training.batch_statistics import broadcast_running_averages
from m2pt.training.launch import rank_and_world
from m2pt.training.method import Step


class SelectedOnValidation:
    """The method's part in steps and epochs, and the weights with the best validation accuracy.

    A `m2pt.training.method.Method`: clips as the recipe says, measures the validation split after each epoch,
    lets the method act on it, and keeps the classifier's weights if the accuracy is the best so far (the
    first of equal ones). The test split is never read.

    Args:
        method: the method that is trained.
        task: measures a batch.
        batches: function that returns the validation batches of a process, of (rank, world).
        head_clip: see `ConditionalClipping`; None does not clip.
    """

    def __init__(
        self,
        method: BalancingMethod,
        task: JointTask,
        batches: Callable[[int, int], Iterable[Any]],
        head_clip: float | None,
    ) -> None:
        self.method, self.task, self.batches = method, task, batches
        self.clip = None if head_clip is None else ConditionalClipping(method, head_clip, _head(method.model))
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_accuracy = 0, -1.0

    def before_step(self, model: nn.Module, step: Step) -> Mapping[str, Tensor]:
        """Let the method change the gradients, then clip them; return what the method logs."""
        with method_errors():
            self.method.before_step()
        clipped = {} if self.clip is None else {"clipped": self.clip().float()}
        return {**self.method.scalars, **clipped}

    def after_epoch(self, model: nn.Module, epoch: int) -> Mapping[str, float]:
        """Measure the validation split, and keep the weights if they are the best so far."""
        if rank_and_world()[1] > 1:  # processes that share whole passes have averages of their own
            broadcast_running_averages(self.method)
        with method_errors():
            validation = self.measure()
            if validation.accuracy > self.best_accuracy:  # before the method may restore other weights
                self.best_epoch, self.best_accuracy = epoch, validation.accuracy
                state = self.method.model.state_dict()
                self.best = {name: value.detach().cpu().clone() for name, value in state.items()}
            self.method.after_epoch(epoch, validation)
        values = {"val_top1": 100 * validation.accuracy, "val_loss": validation.loss}
        for name in validation.mono_accuracy:
            values[f"val_top1_{name}"] = 100 * validation.mono_accuracy[name]
            values[f"val_loss_{name}"] = validation.mono_loss[name]
        return values

    @torch.no_grad()
    def measure(self) -> Validation:
        """Measure the validation split; every process gets the same result."""
        model = self.method.model
        device = next(model.parameters()).device
        local = []
        with evaluation_mode(self.method):
            for batch in self.batches(*rank_and_world()):
                moved = send_to_device(batch, device)
                inputs = {name: moved[0][name] for name in self.method.modalities}
                losses = self.method.validation_losses(inputs, moved[1])
                method_losses = {name: float(value) for name, value in losses.items()}
                local.append((self.task.measure(model, moved), method_losses))
        return _validation(_gathered(local))

    def state_dict(self) -> dict[str, Any]:
        """Return the best weights so far and their epoch; the method's own state is in the model's."""
        return {"best": self.best, "best_epoch": self.best_epoch, "best_accuracy": self.best_accuracy}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        self.best = dict(state["best"])
        self.best_epoch, self.best_accuracy = int(state["best_epoch"]), float(state["best_accuracy"])


def _head(model: Any) -> list[nn.Linear]:
    """Return the linear layers that give the logits."""
    fusion = model.fusion
    return list(fusion.heads.values()) if hasattr(fusion, "heads") else [fusion.head]


def _gathered(local: list[Any]) -> list[Any]:
    """Return the measurements of all processes in the order of a single one, in every process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return local
    shared = [in_order(local)]
    distributed.broadcast_object_list(shared, src=0)
    return shared[0]  # type: ignore[return-value]


def _validation(measured: list[tuple[Measured, Mapping[str, float]]]) -> Validation:
    samples = sum(each.samples for each, _ in measured)
    if not samples:
        raise InputError("there is nothing to validate on: the validation split is empty")
    names = list(measured[0][0].correct)
    accuracy = {name: sum(each.correct[name] for each, _ in measured) / samples for name in names}
    loss = {name: sum(each.loss[name] for each, _ in measured) / samples for name in names}
    mono = [name for name in names if name != ALL]
    method_losses = {
        name: sum(each.samples * values[name] for each, values in measured) / samples
        for name in measured[0][1]
    }
    return Validation(
        accuracy=accuracy[ALL],
        loss=loss[ALL],
        mono_accuracy={name: accuracy[name] for name in mono},
        mono_loss={name: loss[name] for name in mono},
        method_loss=method_losses,
    )
