"""Forwards that pathways cannot follow: of one module alone, beside its class's, or run after the call."""

import inspect
from collections.abc import Iterable

from torch import nn

from m2pt.pathway.layers import plain_class
from m2pt.pathway.terms import PathwayError
from m2pt.pathway.wrappers import COMPILED, without_wrappers

_RUN_LATER = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
"""Whether the body of a function runs after the call has returned."""


def check_forwards(block: nn.Module, layers: Iterable[nn.Module], label: str) -> None:
    """Refuse some forwards from a block down to its layers.

    A call finds patched ones before those of the classes. Generator and async functions run when the call has
    returned, outside of what is marked, and would read W.

    Args:
        block: the block.
        layers: the layers that are to have pathways, in this block or others.
        label: what the message calls the block.

    Raises:
        PathwayError: a module that leads to one of the layers has such a forward.
    """
    wanted = {id(layer) for layer in layers}
    for path, module in block.named_modules():
        # torch.compile's module has one that calls the module inside
        is_patched = "forward" in vars(module) and COMPILED not in module._modules
        is_later = any(each(plain_class(module).forward) for each in _RUN_LATER)
        if not (is_patched or is_later) or wanted.isdisjoint(id(below) for below in module.modules()):
            continue
        where = f"{without_wrappers(path)!r} of {label}" if path else label
        if is_later:
            raise PathwayError(
                f"the forward of {where} ({plain_class(module).__name__}) is a generator or async function, "
                "which runs after the call has returned and would not see the pathways: choose other "
                "layers=[...], or let a method of another name yield or await what the forward computes"
            )
        raise PathwayError(
            f"{where} ({type(module).__name__}) has a forward of its own beside its class's, by a patch, a "
            "hook of accelerate or torch.compile(module.forward), and would not see the pathways: attach "
            "first and patch or hook then, or use module.compile()"
        )
