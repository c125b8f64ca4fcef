"""Passes that leave nothing behind: random generators and buffers are as they were before."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode


@contextmanager
def without_trace(model: nn.Module) -> Iterator[None]:
    """Restore the generators of a model's devices and of Python, and its buffers, such as statistics."""
    generators = [(each, each.get_state()) for each in generators_of(model)]
    python = random.getstate()
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if not (buffer is None or is_lazy(buffer))
    ]
    try:
        yield
    finally:
        torch.clear_autocast_cache()  # weights that were cast without a graph
        random.setstate(python)
        for generator, state in generators:
            generator.set_state(state)
        for module, name, buffer, value in buffers:
            module._buffers[name] = buffer
            if not (buffer.is_meta or torch.equal(buffer, value)):
                with torch.no_grad():
                    buffer.copy_(value)


def generators_of(model: nn.Module) -> list[torch.Generator]:
    """Return the default generators of the CPU and of the GPUs that hold a model."""
    devices = {each.device for each in model.parameters() if each.device.type in ("cuda", "xpu")}
    return [
        torch.default_generator,
        *(torch.get_device_module(device).default_generators[device.index] for device in devices),
    ]


class SameDraws(TorchFunctionMode):
    """A context in which each function of torch draws from generators at the same seed.

    What a function draws does not depend on what was drawn before, so that two passes which do the same in
    another order draw the same numbers. `drawn` counts the functions that draw.

    Args:
        generators: the generators to set.
    """

    def __init__(self, generators: Iterable[torch.Generator]) -> None:
        super().__init__()
        self.drawn: Counter[str] = Counter()
        self.generators = [(each, each.manual_seed(0).get_state()) for each in generators]

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch."""
        for generator, _ in self.generators:
            generator.manual_seed(0)
        found = function(*args, **(kwargs or {}))
        if any(not torch.equal(each.get_state(), seeded) for each, seeded in self.generators):
            self.drawn[getattr(function, "__name__", str(function))] += 1
        return found
