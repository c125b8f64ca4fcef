"""The bytes that trainings leave and need while they run, from the shapes of their tensors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

_MOMENTS = {"adamw": 2, "lamb": 2, "sgd": 1, "lars": 1}
"""Tensors that an optimizer keeps for each that it trains."""


@dataclass(frozen=True)
class Footprint:
    """`kept`: weight files, by name. `resume`: one checkpoint of a running training. All in bytes."""

    kept: Mapping[str, int]
    resume: int

    @property
    def total(self) -> int:
        """Bytes of all weight files."""
        return sum(self.kept.values())

    @property
    def running(self) -> int:
        """Bytes at the worst moment of the training: a checkpoint, and the one that replaces it."""
        return 2 * self.resume


def footprint(
    model: "nn.Module", saved: Mapping[str, Mapping[str, "Tensor"]], optimizer: str, copies: int = 1
) -> Footprint:
    """What a training of `model` with this optimizer writes.

    `saved` are the tensors of its weight files, each of which is kept `copies` times.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Footprint(
        {name: copies * size(tensors.values()) for name, tensors in saved.items()},
        size(model.state_dict().values()) + _MOMENTS[optimizer] * size(trained),
    )


def size(tensors: Iterable["Tensor"]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
