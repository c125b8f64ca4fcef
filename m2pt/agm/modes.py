"""Training and evaluation mode: switching a model for a pass, and what depends on it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

_BY_THEIR_PARTS = (
    nn.Module,
    nn.TransformerEncoderLayer,  # it reads its mode to choose a fused kernel with the same result
    nn.TransformerEncoder,
)
"""Classes in which only the submodules can depend on the mode."""

_NAMED = {"DropPath": "drop_prob", "StochasticDepth": "p"}
"""Modules of timm and torchvision that do nothing when this probability is 0."""


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, then every submodule back into the mode that it was in.

    Modules with a `train` or `eval` of their own, which may merge weights or keep a flag, are switched by it.
    Recurrent layers stay in training mode with their dropout set to 0: the result is the same, and cuDNN
    refuses the backward pass of a recurrent layer in evaluation mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    training = [module for module, mode in modes if mode]
    switching = [(module, mode) for module, mode in modes if _switches_itself(module)]
    switched = []
    recurrent = [
        (module, module.dropout)
        for module in training
        if isinstance(module, nn.RNNBase) and not _adds_mode(type(module))  # type: ignore[arg-type]
    ]
    kept = {module for module, _ in recurrent}
    try:
        for module, _ in switching:
            if module.training:  # else it is meant to stay, or its parent's `eval` has switched it
                module.eval()
                switched.append(module)
        for module in training:
            module.training = module in kept
        for module, _ in recurrent:
            module.dropout = 0.0
        yield
    finally:
        for module in switched:
            module.train()
        for module, mode in switching:
            if module.training and not mode:  # its parent's `train` has switched it
                module.eval()
        for module, mode in modes:
            module.training = mode
        for module, dropout in recurrent:
            module.dropout = dropout


def _switches_itself(module: nn.Module) -> bool:
    """Return whether a module has a `train` or `eval` of its own."""
    cls = type(module)
    own = cls.train is not nn.Module.train or cls.eval is not nn.Module.eval
    return own or "train" in vars(module) or "eval" in vars(module)


def depends_on_mode(modules: Iterable[nn.Module]) -> bool:
    """Return whether a pass in training mode can differ from one in evaluation mode, given all its modules.

    BatchNorm and dropout with a probability above 0 do. So does, to be on the safe side, any other class
    whose code reads `training`, and any module with a forward hook.
    """
    return any(module.training and _is_mode_dependent(module) for module in modules)


def mixes_samples(modules: Iterable[nn.Module]) -> bool:
    """Return whether a sample's output depends on the others in evaluation mode.

    That is so for BatchNorm without running statistics.
    """
    return any(isinstance(module, _BatchNorm) and module.running_mean is None for module in modules)


def _is_mode_dependent(module: nn.Module) -> bool:
    """Return whether the mode matters for a module itself, apart from its submodules."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return True
    if _adds_mode(type(module)):  # type: ignore[arg-type]
        return True
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, _BatchNorm | _InstanceNorm):
        return module.running_mean is not None
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return module.dropout > 0
    name = type(module).__name__
    if name in _NAMED and isinstance(probability := getattr(module, _NAMED[name], None), int | float):
        return probability > 0
    if name == "OptimizedModule":
        return False  # what torch.compile returns; the compiled module is a submodule of it
    if name == "Attention" and type(module).__module__.startswith("timm."):
        return False  # it passes on the probability of its submodule attn_drop
    return _reads_mode(type(module))  # type: ignore[arg-type]  # mypy: classes do hash


@cache
def _reads_mode(cls: type) -> bool:
    """Return whether the code of a class, outside `_BY_THEIR_PARTS`, mentions `training`."""
    if issubclass(cls, torch.jit.ScriptModule):
        return True
    return _any_mentions_mode(
        each for each in cls.__mro__ if each not in _BY_THEIR_PARTS and each is not object
    )


_BUILT_IN = (_DropoutNd, _BatchNorm, _InstanceNorm, nn.RNNBase, nn.MultiheadAttention)
"""Classes of torch of which it is known when they depend on the mode; not so of their subclasses."""


@cache
def _adds_mode(cls: type) -> bool:
    """Return whether a subclass of a class of torch reads `training` in code of its own."""
    if not issubclass(cls, _BUILT_IN):
        return False
    own = [each for each in cls.__mro__ if not each.__module__.startswith("torch.")]
    return any(
        _mentions_mode(code) for each in own for value in vars(each).values() for code in _codes(value)
    )


def _any_mentions_mode(classes: Iterable[type]) -> bool:
    """Return whether the code in the body of one of the classes mentions `training`."""
    bodies = (value for each in classes for value in vars(each).values())
    return any(_mentions_mode(code) for value in bodies for code in _codes(value))


def _codes(value: Any) -> Iterator[CodeType]:
    """Yield the code of a function, method or property in the body of a class, without decorators."""
    parts = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
    for part in parts:
        while part is not None:
            function = getattr(part, "__func__", part)
            if isinstance(code := getattr(function, "__code__", None), CodeType):
                yield code
            part = getattr(function, "__wrapped__", None)


def _mentions_mode(code: CodeType) -> bool:
    """Return whether code, or a function inside it, reads an attribute `training` or names it in a string."""
    if "training" in code.co_names or "training" in code.co_consts:
        return True
    return any(_mentions_mode(each) for each in code.co_consts if isinstance(each, CodeType))
