"""Interface of a training method that takes part in `fit`, such as one that balances modalities."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """The optimizer step that is about to be taken."""

    number: int
    """Counted from 1, as in metrics.jsonl."""
    epoch: int
    """Counted from 1."""
    scalars: Mapping[str, Tensor]
    """What the loss function returned, with "loss" first: means over this process's forward passes."""


class Method(Protocol):
    """Hooks into each step and epoch of `fit`, with a state that survives a restart.

    Every process calls each hook, at the same step. The method must act alike in all of them, since gradients
    and weights are equal everywhere and must stay so: base decisions on equal values (gradients, weights,
    the step), or reduce it over the processes first (a process's own losses). Collective operations are
    allowed.

    Before each hook Python's, NumPy's and torch's generators are seeded from the training's seed and the
    step, alike in all processes, so that random draws are equal everywhere and repeat after a restart.

    A method that is an `nn.Module` is moved to the training's device. Its hyper-parameters belong to the
    `identity` of the training; only the identity prevents resuming with different ones.
    """

    def before_step(self, model: nn.Module, step: Step) -> Mapping[str, Tensor] | None:
        """Read or change gradients after the last backward pass of a step and before the optimizer's step.

        Each `.grad` is then complete: summed over the accumulated passes, averaged over the processes,
        unscaled (fp16) and not yet clipped. It may be changed in place, replaced, or set to None, which makes
        the optimizer skip the parameter. With `repeat_step` above 1 the hook is called once, and all
        repetitions take the changed gradient. Under fp16 gradients may hold Inf or NaN: the scaler then skips
        this step, so keep no average of them.

        Args:
            model: the module that was given to `fit`, not wrapped.
            step: the step, and the scalars of this process.

        Returns:
            Further scalars to log, the same names at each step, averaged like the losses over processes and
            over the steps between two lines of metrics.jsonl. They stay on the device; avoid `.item()`.
        """

    def after_epoch(self, model: nn.Module, epoch: int) -> Mapping[str, float] | None:
        """Act at the end of an epoch, before its snapshot and checkpoint.

        The model is in training mode, and must be left in it.

        Args:
            model: the module that was given to `fit`, not wrapped.
            epoch: number of complete epochs.

        Returns:
            Values to log; those of the main process are written.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a restart as plain containers and tensors, equal in all processes."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Restore a state returned by `state_dict`; tensors arrive on the CPU.

        Raises:
            Exception: `state` does not fit.
        """


def check_method(method: Method) -> None:
    """Check that a method has every member of `Method`, before any step is taken.

    Raises:
        TypeError: it lacks one.
    """
    for name in ("before_step", "after_epoch", "state_dict", "load_state_dict"):
        if not callable(getattr(method, name, None)):
            raise TypeError(f"{type(method).__name__} is not a training method: it has no {name}()")
