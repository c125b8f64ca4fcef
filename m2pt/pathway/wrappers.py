"""Modules that peft's adapters and torch.compile put around a module; the paths of layers leave them out."""

from torch import nn

BASE_LAYER = "base_layer"
"""Where peft keeps the layer that it wraps."""

COMPILED = "_orig_mod"
"""Where torch.compile keeps the module that it wraps."""


def without_wrappers(path: str) -> str:
    """Return a path without wrappers in it: `attn.query` for `_orig_mod.attn.query.base_layer`."""
    return ".".join(part for part in path.split(".") if part not in (BASE_LAYER, COMPILED))


def uncompiled(module: nn.Module) -> nn.Module:
    """Return the module that torch.compile has wrapped, or the module itself."""
    while COMPILED in module._modules:
        module = module.get_submodule(COMPILED)
    return module
