"""The exponential moving average of the weights that merging would leave (`ema` of a recipe).

An average of W, A and λ apart is another thing: merging it gives E[W] + E[λ]·E[A], which is not the average
E[W + λA] of the models that the training went through. So W + λA is averaged, under the name of W.
"""

from collections.abc import Iterator, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from m2pt.pathway import effective_weight, is_pathway


class MergedAverage:
    """Average of a model's merged weights, which starts at those that it has now.

    After each step, average ← decay · average + (1 - decay) · (W + Σ λᵢAᵢ), in float32 or better. As in
    timm's `ModelEmaV3` without its warmup, the decay is the same from the first step on: after n steps the
    initial weights still have the share decayⁿ. Buffers are not averaged; `merged` has the model's own.

    Args:
        model: with or without pathways; the average belongs to this very module.
        decay: between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self._average = {
            name: weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)
            for name, weight in self._merged_weights()
        }

    def to(self, device: torch.device) -> Self:
        """Move the average, as the model is moved."""
        self._average = {name: average.to(device) for name, average in self._average.items()}
        return self

    def update(self) -> None:
        """Average in the weights that the model has now."""
        for name, weight in self._merged_weights():
            average = self._average[name]
            average.lerp_(weight.to(average.dtype), 1 - self.decay)

    def merged(self) -> dict[str, Tensor]:
        """Return the state dict of the averaged model: plain layers, in the dtypes of the model."""
        return {
            name: self._average[name].to(value.dtype) if name in self._average else value
            for name, value in self.model.state_dict().items()
            if not is_pathway(name)
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average for a restart, by the names of the merged weights."""
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state_dict`.

        Raises:
            ValueError: it is that of another model.
        """
        shapes, own = (
            {name: (value.shape, value.dtype) for name, value in each.items()}
            for each in (state, self._average)
        )
        if shapes != own:
            names = sorted(name for name in {*shapes, *own} if shapes.get(name) != own.get(name))
            raise ValueError(f"the average is of another model, which differs in {', '.join(names[:3])}")
        for name, value in state.items():
            self._average[name].copy_(value)

    def _merged_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and value of each weight as merging would leave it, one at a time."""
        for path, module in self.model.named_modules(remove_duplicate=False):
            for attribute, parameter in module._parameters.items():
                name = f"{path}.{attribute}" if path else attribute
                if parameter is not None and not is_pathway(name):
                    with torch.no_grad():  # not around the yield, which would leave it on for the caller
                        weight = effective_weight(module, attribute)
                    yield name, weight.detach()
