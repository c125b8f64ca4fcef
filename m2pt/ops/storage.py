"""Disk space of trainings and their outputs, from the shapes of their tensors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

_MOMENTS = {"adamw": 2, "lamb": 2, "sgd": 1, "lars": 1}
"""Number of state tensors that an optimizer keeps for each trainable parameter."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a training's weight files, by name, and of one resume checkpoint."""

    kept: Mapping[str, int]
    resume: int

    @property
    def running(self) -> int:
        """Maximum bytes of checkpoints at once: one, and the one that is about to replace it."""
        return 2 * self.resume


def footprint(
    model: "nn.Module",
    saved: Mapping[str, Mapping[str, "Tensor"]],
    optimizer: str,
    copies: int = 1,
    *,
    averaged: bool = False,
) -> Footprint:
    """Return the footprint of a training of `model` with this optimizer.

    `saved` are the tensors of its weight files, each of which is kept `copies` times. With `averaged` the
    checkpoint also has the average of the merged weights.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    average = saved["merged"].values() if averaged else ()
    return Footprint(
        {name: copies * num_bytes(tensors.values()) for name, tensors in saved.items()},
        num_bytes([*model.state_dict().values(), *average]) + _MOMENTS[optimizer] * num_bytes(trainable),
    )


def num_bytes(tensors: Iterable["Tensor"]) -> int:
    """Return the bytes of all tensors."""
    return sum(each.numel() * each.element_size() for each in tensors if hasattr(each, "numel"))


def format_bytes(number: int) -> str:
    """Return bytes in MiB, from 1 GiB on in GiB."""
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:,.1f} MiB"
