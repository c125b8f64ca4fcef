"""Conditional clipping: the gradient norm is clipped only where the head's gradient is large.

The released training loops clip the global norm of all gradients to a limit if an element of the gradient of
the last linear layer's weight is above it or below minus it. That is a part of the recipe, not of AGM: use it
with every method that is compared. `PRESETS` has the limit of each dataset.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.agm.checks import BalancingError
from m2pt.agm.settings import check_module, check_number


class ConditionalClipping:
    """Clip the gradients of a model when its head's are large; call it between backward and the step.

    Args:
        model: the model whose gradients are clipped.
        limit: bound on an element of the head's gradient, and the norm to clip to.
        head: the linear layer, or several, that decide; by default the last of `model.fusion`.

    Raises:
        BalancingError: the limit is not positive, the model no module, or there is no such layer.
    """

    def __init__(
        self, model: nn.Module, limit: float, head: nn.Linear | Sequence[nn.Linear] | None = None
    ) -> None:
        check_module("model", model)
        check_number("limit", limit, positive=True)
        self.model = model
        self.limit = limit
        heads: Any = last_linear(model) if head is None else head
        self.heads: list[nn.Linear] = [*heads] if isinstance(heads, Iterable) else [heads]
        if not self.heads or not all(isinstance(each, nn.Linear) for each in self.heads):
            raise BalancingError(f"head must be a linear layer or a list of them, got {head!r}")

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Clip in place, without waiting for a GPU, and return whether it was done as a boolean scalar.

        Raises:
            BalancingError: a head has no gradient.
        """
        for head in self.heads:
            if head.weight.grad is None:
                raise BalancingError("the head's weight has no gradient: clip after backward(), and train it")
        largest = torch.stack([head.weight.grad.abs().amax() for head in self.heads]).amax()  # type: ignore[union-attr]
        clips = largest > self.limit
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        factor = self.limit / (norm + 1e-6)  # as in torch's clip_grad_norm_; below 1, since norm >= largest
        factor = torch.where(clips, factor, torch.ones_like(factor))
        for gradient in gradients:
            gradient.mul_(factor.to(gradient.device))
        return clips


def last_linear(model: nn.Module) -> nn.Linear:
    """Return the last linear layer of `model.fusion`, in the order of its modules.

    Raises:
        BalancingError: there is none.
    """
    fusion = getattr(model, "fusion", None)
    layers = (
        [each for each in fusion.modules() if isinstance(each, nn.Linear)]
        if isinstance(fusion, nn.Module)
        else []
    )
    if not layers:
        raise BalancingError(
            f"{type(model).__name__} has no module `fusion` with a linear layer: give the head as head=..."
        )
    return layers[-1]
