"""Forwards that pathways cannot follow: those of one module alone, and those that write its weight."""

import dis
import functools
import inspect
from collections.abc import Iterable, Iterator
from types import CodeType

from torch import Tensor, nn

from m2pt.pathway.layers import PathwayError, plain_class

_IN_PLACE = {name for name in dir(Tensor) if name.endswith("_") and not name.startswith("_")}
_IN_PLACE -= {"requires_grad_", "detach_", "rename_", "share_memory_"}


def check_forwards(block: nn.Module, places: Iterable[tuple[nn.Module, str]], label: str) -> None:
    """Refuse forwards that pathways cannot follow, from `block` down to its layers.

    Args:
        block: the block.
        places: the layers and names of the parameters that are to have pathways.
        label: what the message calls the block.

    Raises:
        PathwayError: a module has a forward of its own, which a call finds before that of its class; or its
            class has one that writes a parameter of `places`, which in a forward is a sum.
    """
    wanted: dict[int, list[str]] = {}
    for layer, name in places:
        wanted.setdefault(id(layer), []).append(name)
    for path, module in block.named_modules():
        inside = [
            f"{below}.{name}".lstrip(".")
            for below, layer in module.named_modules()
            for name in wanted.get(id(layer), ())
        ]
        if inside:
            where = f"{path!r} of {label}" if path else label
            _check_forward(module, inside, f"{where} ({type(module).__name__})")


def _check_forward(module: nn.Module, inside: Iterable[str], where: str) -> None:
    """Check the forward of a module that has parameters with pathways at the paths `inside`."""
    if "forward" in vars(module) and "_orig_mod" not in module._modules:  # torch.compile's calls the module
        raise PathwayError(
            f"{where} has a forward of its own beside its class's, by a patch, a hook of accelerate or "
            "torch.compile(module.forward), and would not see the pathways: attach first and patch or hook "
            "then, or use module.compile()"
        )
    for name in written_in_forward(plain_class(module)).intersection(inside):
        raise PathwayError(
            f"the forward of {where} writes {name!r}, which in a forward is W + Σ λᵢAᵢ: constrain the weight "
            "after optimizer.step() instead, where it is W"
        )


@functools.cache
def written_in_forward(plain: type[nn.Module]) -> frozenset[str]:
    """Return what forwards of the class or its bases write: `weight`, or `qkv.weight` of a module inside.

    That is what they assign to `.data` of, or call a method of torch on that changes its tensor.
    """
    forwards = [inspect.unwrap(vars(base)["forward"]) for base in plain.__mro__ if "forward" in vars(base)]
    codes = [getattr(forward, "__code__", None) for forward in forwards]
    return frozenset(path for code in codes if code is not None for path in _written(code))


def _written(code: CodeType) -> Iterator[str]:
    """Yield the paths behind `self` where the code writes to one: `weight` of `self.weight.data.clamp_()`."""
    chain: list[str] | None = None
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        if name.startswith("LOAD_FAST"):
            chain = [] if value == code.co_varnames[0] else None
        elif chain is not None and name in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"):
            if value in _IN_PLACE or (name == "STORE_ATTR" and value == "data"):
                yield ".".join(chain).removesuffix(".data")
            chain.append(value)
        else:
            chain = None
