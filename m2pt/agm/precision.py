"""Precision: logits in float32 or better, and buffers that keep their dtype whatever the model is in."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn

from m2pt.agm.checks import BalancingError


def at_least_float32(logits: Tensor) -> Tensor:
    """Return float16 and bfloat16 logits as float32, and others as they are."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast; the meta device, on which nothing is computed, has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class Float64Buffers(nn.Module):
    """A module whose buffers follow the model to another device, but never to another dtype.

    A mean over many thousand batches kept in bfloat16 would stop changing after a few hundred. On devices
    without float64 (Apple's MPS) buffers in float64 become float32.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply what `to`, `cuda` or `half` does, keeping the dtype and the value of the buffers.

        Raises:
            BalancingError: the buffers leave the meta device, on which they have no values.
        """
        kept: dict[str, Any] = dict(self._buffers)
        devices = {name: fn(torch.empty(0, device=each.device)).device for name, each in kept.items()}
        if any(each.is_meta and devices[name].type != "meta" for name, each in kept.items()):
            raise BalancingError(
                f"the buffers of {type(self).__name__} were made on the meta device and have no values: "
                "leave `torch.device('meta')` before you build the method; the model alone may be built in it"
            )
        for name in kept:
            self._buffers[name] = None
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            device = devices[name]
            if device.type == "mps" and buffer.dtype == torch.float64:
                buffer = buffer.float()
            self._buffers[name] = buffer.to(device)
        return self
