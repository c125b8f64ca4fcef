"""Forwards that pathways cannot follow: those of one module alone, beside its class's."""

from collections.abc import Iterable

from torch import nn

from m2pt.pathway.terms import PathwayError
from m2pt.pathway.wrappers import COMPILED, without_wrappers


def check_forwards(block: nn.Module, layers: Iterable[nn.Module], label: str) -> None:
    """Refuse patched forwards from a block down to its layers: a call finds them before those of the classes.

    Args:
        block: the block.
        layers: the layers that are to have pathways, in this block or others.
        label: what the message calls the block.

    Raises:
        PathwayError: a module that leads to one of the layers has a forward of its own.
    """
    wanted = {id(layer) for layer in layers}
    for path, module in block.named_modules():
        # torch.compile's module has one that calls the module inside
        if "forward" not in vars(module) or COMPILED in module._modules:
            continue
        if wanted.isdisjoint(id(below) for below in module.modules()):
            continue
        where = f"{without_wrappers(path)!r} of {label}" if path else label
        raise PathwayError(
            f"{where} ({type(module).__name__}) has a forward of its own beside its class's, by a patch, a "
            "hook of accelerate or torch.compile(module.forward), and would not see the pathways: attach "
            "first and patch or hook then, or use module.compile()"
        )
