"""Who reads a weight by its name, where that decides what it is to be.

Outside of a forward `layer.weight` is W, in one W + Σ λᵢAᵢ. Three readers need something else:

- `fully_shard` makes sure of its shard of W in a forward;
- adapters of peft are merged into W and taken out of it, also in a forward when they are disabled. That is
  right for those that add to W. Others multiply it, IA³ and OFT for example, or divide by its norm, as DoRA
  does: for them W is not enough, since A stays as it is;
- torch fuses a convolution or a linear layer with the norm behind it, which multiplies W too.
"""

import re
import sys
from types import FrameType
from typing import Literal

import torch
from torch import Tensor, nn

from m2pt.pathway.keeping import merged_names
from m2pt.pathway.sharding import is_distributed
from m2pt.pathway.terms import PathwayError

_ADDING = re.compile(
    "adalora|adamss|beft|c3a|delora|fourierft|gralora|ln_tuning|loha|lokr|lora|miss|osf|pvera|randlora|shira|"
    "supertuning|tinylora|unilora|vblora|vera|waveft"
)
"""Packages of `peft.tuners` whose adapters add to W what does not depend on it."""

_FUSING = {"fuse_conv_bn_eval", "fuse_linear_bn_eval"}


def wanted(layer: nn.Module, name: str, weight: Tensor) -> Literal["W", "sum"] | None:
    """Return what the caller of the caller is to read, None if that does not depend on who it is.

    Args:
        layer: the layer whose parameter `name` is read.
        name: of the parameter.
        weight: the parameter.

    Raises:
        PathwayError: it would write wrong values.
    """
    if torch.compiler.is_compiling():
        return None
    reader = sys._getframe(2)
    module = reader.f_globals.get("__name__", "")
    if module.startswith("peft."):
        return _wanted_by_peft(layer, name, reader)
    if module == "torch.nn.utils.fusion" and reader.f_code.co_name in _FUSING:
        raise PathwayError(
            f"{reader.f_code.co_name} would multiply {name!r} of {_described(layer)} and not the matrices of "
            "its pathways: merge() the model before you fuse it"
        )
    is_fsdp = module.startswith("torch.distributed.fsdp.")
    return "W" if is_fsdp and type(weight) is not nn.Parameter and is_distributed(weight) else None


def _wanted_by_peft(layer: nn.Module, name: str, frame: FrameType | None) -> Literal["W", "sum"] | None:
    """Return what peft is to read: W to add to it, the sum for an adapter that depends on it."""
    depends = False
    while frame is not None and (module := frame.f_globals.get("__name__", "")).startswith("peft."):
        adapter = frame.f_locals.get("self")
        if frame.f_code.co_name in ("merge", "unmerge") and isinstance(adapter, nn.Module):
            if not _adds(adapter):
                raise PathwayError(
                    f"peft's {_kind(adapter)} would change {name!r} of {_described(layer)} by more than a "
                    "sum, and not the matrices of its pathways: merge() the pathways first, then "
                    "merge_and_unload() or merge_adapter()"
                )
            if merged_names(layer):
                raise PathwayError(
                    f"{_described(layer)} is merged with keep_terms=True and would not see what peft adds to "
                    f"{name!r}: unmerge() the model first"
                )
            return "W"
        package = _package(module)
        depends |= module == "peft.tuners.lora.dora" or bool(package and not _ADDING.fullmatch(package))
        frame = frame.f_back
    return "sum" if depends else None


def _adds(adapter: nn.Module) -> bool:
    """Return whether an adapter of peft adds to W what does not depend on it; of one we do not know, no."""
    values = vars(adapter)
    variants = [type(each).__name__ for each in values.get("lora_variant", {}).values()]
    return (
        _ADDING.fullmatch(_kind(adapter).partition(".")[0]) is not None
        and not any("Dora" in each for each in variants)
        and values.get("miss_fn") != "bat"
    )


def _kind(adapter: nn.Module) -> str:
    """Return what messages call an adapter of peft: `oft.Linear`."""
    package = next((found for base in type(adapter).__mro__ if (found := _package(base.__module__))), "")
    return f"{package}.{type(adapter).__name__}"


def _package(module: str) -> str | None:
    """Return the package of `peft.tuners` that a module is in, None if it is in none."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["peft", "tuners"] and len(parts) > 3 else None


def _described(layer: nn.Module) -> str:
    """Return a layer with its sizes, as `print` shows it: `AttachedLinear(in_features=24, ...)`."""
    return f"{type(layer).__name__}({layer.extra_repr()})"
