"""Find the blocks of a model and the matrices in them."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from m2pt.pathway.layers import effective_weight, plain_class
from m2pt.pathway.sharding import is_distributed, whole
from m2pt.pathway.terms import PathwayError, is_attached, listed
from m2pt.pathway.wrappers import BASE_LAYER, uncompiled, without_wrappers

Blocks: TypeAlias = nn.Module | Iterable[nn.Module]
Layers: TypeAlias = str | Iterable[str] | Mapping[str | tuple[str, ...], str | Iterable[str]]

ALL_LINEAR = "all-linear"
TARGET = "the target"

_MODEL_HEADS = {"head", "heads", "classifier", "lm_head", "score", "logits"}


@dataclass(frozen=True)
class Matrix:
    """One parameter of a block: a matrix or the kernel of a convolution.

    `path` is that in the block without the wrappers of peft and torch.compile around it.
    """

    path: str
    module: nn.Module
    name: str

    @property
    def parameter(self) -> Tensor:
        """The parameter itself."""
        return self.module._parameters[self.name]  # type: ignore[return-value]

    @property
    def is_transposed(self) -> bool:
        """Whether its rows are inputs, as in the Conv1D of transformers (GPT-2)."""
        named = any(base.__name__ == "Conv1D" for base in type(self.module).__mro__)
        return named and not isinstance(self.module, _ConvNd)

    @property
    def rows_are_inputs(self) -> bool:
        """Whether the first dimension of the parameter is that of the inputs."""
        return self.is_transposed or (isinstance(self.module, _ConvNd) and self.module.transposed)

    @property
    def is_stack(self) -> bool:
        """Whether it is a series of matrices in one parameter, such as those of experts."""
        shape = self.parameter.shape
        return len(shape) == 3 and min(shape) > 1 and not isinstance(self.module, _ConvNd)

    @property
    def is_recurrent(self) -> bool:
        """Whether it is of an LSTM, a GRU or another recurrent layer, or of a cell of one."""
        return isinstance(self.module, nn.RNNBase | nn.RNNCellBase)

    @property
    def shape(self) -> torch.Size:
        """The shape with one row for each output."""
        shape = self.parameter.shape
        return shape[::-1] if self.is_transposed else shape

    @property
    def values(self) -> Tensor:
        """What the layer computes with, with one row for each output."""
        with torch.no_grad():
            value = whole(effective_weight(self.module, self.name).detach())
        return value.mT if self.is_transposed else value

    @property
    def is_linear(self) -> bool:
        """Whether it multiplies features, as opposed to an embedding, a norm, a table or a kernel."""
        return (
            self.parameter.ndim == 2
            and not isinstance(self.module, nn.Embedding | nn.EmbeddingBag | nn.LayerNorm | nn.RMSNorm)
            and (self.name == "weight" or self.name.endswith("_weight"))
        )


def find_blocks(given: Blocks, what: str, layers: Layers) -> list[nn.Module]:
    """Return the blocks in `given`: a list, a container, a whole model, or a module that is the only block.

    In a model they are the longest series of equal modules with matrices, `model.blocks` for example. A
    decoder beside one encoder is left out, with a warning if it is the target's. Of blocks that torch.compile
    has wrapped they are the modules inside.

    Args:
        given: as `attach` takes a target or an auxiliary.
        what: what messages call it; "the target" is the one with the warning.
        layers: as `attach` takes them.

    Raises:
        PathwayError: the model has several such series, or none where "all-linear" would take the head: in a
            convolutional network, an `nn.Sequential` of different modules, or beside a layer named `head`.
    """
    if not isinstance(given, nn.Module):
        return modules_in(given, what)
    given = uncompiled(given)
    children = _children(given)
    if isinstance(given, nn.ModuleList):
        return children
    if isinstance(given, nn.Sequential):
        if len(children) == 1:
            return find_blocks(children[0], what, layers)
        if len({plain_class(child) for child in children}) <= 1:
            return children
    series = {
        without_wrappers(path): _children(module)
        for path, module in given.named_modules()
        if _is_series(module)
    }
    outer = {
        path: blocks
        for path, blocks in series.items()
        if not any(path.startswith(f"{other}.") for other in series if other)
    }
    encoders = {path: blocks for path, blocks in outer.items() if "decoder" not in path.lower()}
    found = encoders if len(encoders) == 1 else outer
    if len(found) > 1:
        raise PathwayError(
            f"{what} has several series of blocks: {_described(found)}; pass the blocks of one of them"
        )
    if found:
        left_out = {path: blocks for path, blocks in outer.items() if path not in found}
        if left_out and what == TARGET:
            warnings.warn(
                f"{what} has blocks that are left out: {_described(left_out)}; pass them to attach to them",
                stacklevel=3,
            )
        return next(iter(found.values()))
    if layers == ALL_LINEAR:
        _check_single(given, what)
    elif isinstance(given, nn.Sequential):
        return children
    return [given]


def modules_in(given: object, what: str) -> list[nn.Module]:
    """Return the modules of a list or an iterator; of compiled ones those inside.

    Raises:
        PathwayError: it is something else.
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        hint = "; load the state dict into a model first" if isinstance(given, Mapping) else ""
        raise PathwayError(f"{what} is a {type(given).__name__}; pass a module or a list of modules{hint}")
    blocks = list(given)
    for block in blocks:
        if not isinstance(block, nn.Module):
            raise PathwayError(f"{what} has a {type(block).__name__} among its blocks; pass modules")
    return [uncompiled(block) for block in blocks]


def _children(module: nn.Module) -> list[nn.Module]:
    return [uncompiled(child) for child in module.children()]


def _described(series: Mapping[str, list[nn.Module]]) -> str:
    """Return series of blocks as messages write them."""
    return ", ".join(
        f"{path!r} ({len(blocks)} x {plain_class(blocks[0]).__name__})" for path, blocks in series.items()
    )


def _check_single(given: nn.Module, what: str) -> None:
    """Check that every linear layer of a module without a series of blocks may have a pathway."""
    where = f"{what} ({type(given).__name__})"
    if isinstance(given, nn.Sequential):
        raise PathwayError(
            f"{what} is a Sequential of different modules, of which the last may be a head; pass the blocks, "
            "list(model) for all of them, or name the layers=[...] to attach"
        )
    found = matrices(given)
    if any(each.parameter.ndim > 2 for each in found.values()):
        raise PathwayError(
            f"{where} has no series of blocks with linear layers; pass its blocks, or name the layers=[...] "
            "to attach"
        )
    linear = [path for path, matrix in found.items() if matrix.is_linear]
    heads = [path for path in linear if path.split(".")[0] in _MODEL_HEADS]
    if heads and len(linear) > len(heads):
        raise PathwayError(
            f"{where} has no series of blocks, and 'all-linear' would attach its head {listed(heads)}; pass "
            "its blocks, or name the layers=[...] to attach"
        )


def _is_series(module: nn.Module) -> bool:
    blocks = _children(module)
    return (
        isinstance(module, nn.ModuleList | nn.Sequential)
        and len({plain_class(block) for block in blocks}) == 1
        and sum(matrix.is_linear for matrix in matrices(blocks[0]).values()) > 1
    )


def matrices(block: nn.Module) -> dict[str, Matrix]:
    """Return the matrices and kernels of a block: `mlp.fc1` for its `weight`, `attn.in_proj_weight`.

    Those of pathways and of peft's adapters are none of the block's.
    """
    found = {}
    for module_path, module in own_modules(block):
        for name, parameter in module._parameters.items():
            if parameter is not None and not _is_lazy(parameter) and parameter.ndim >= 2:
                path = without_wrappers(module_path)
                path = path if name == "weight" else f"{path}.{name}".lstrip(".")
                found[path] = Matrix(path, module, name)
    return found


def own_modules(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the path and the module of each one in a block but for pathways and peft's adapters."""
    modules = dict(block.named_modules())
    wrapped = [path for path, module in modules.items() if BASE_LAYER in module._modules]
    ours = {f"{path}.pathways".lstrip(".") for path, module in modules.items() if is_attached(module)}
    for module_path, module in modules.items():
        if any(f"{module_path}.".startswith(f"{path}.") for path in ours):
            continue
        if any(_is_adapter(module_path, path) for path in wrapped):
            continue
        yield module_path, module


def _is_adapter(path: str, wrapped: str) -> bool:
    """Return whether the module at `path` is what peft has put beside the layer that it wraps."""
    prefix = f"{wrapped}." if wrapped else ""
    inside = path.removeprefix(prefix).split(".")[0] if path.startswith(prefix) else ""
    return path != wrapped and inside not in ("", BASE_LAYER)


def is_plain(parameter: Tensor) -> bool:
    """Return whether a parameter's own numbers are the weights: it is not quantized, nor of another class."""
    return (
        parameter.is_floating_point()
        and parameter.dtype.itemsize > 1  # a float8 has its scale elsewhere
        and (type(parameter) is nn.Parameter or is_distributed(parameter))
    )


def warn_of_left_out(blocks: Iterable[nn.Module]) -> None:
    """Say once which matrices "all-linear" leaves out, of the first block that has such.

    They are those that are stacked in one parameter, and those of recurrent layers and cells.
    """
    for i, block in enumerate(blocks):
        found = matrices(block)
        left_out = [path for path, matrix in found.items() if matrix.is_stack or matrix.is_recurrent]
        if left_out:
            linear = [path for path, matrix in found.items() if matrix.is_linear]
            possible = [path for path in left_out if not isinstance(found[path].module, nn.RNNBase)]
            hint = (
                f"; to attach {listed(possible)} too, name the layers={linear + possible}" if possible else ""
            )
            warnings.warn(
                f"'all-linear' leaves out the stacked or recurrent matrices {listed(left_out)} of target "
                f"block {i}{hint}",
                stacklevel=3,
            )
            return


def _is_lazy(parameter: Tensor) -> bool:
    return isinstance(parameter, nn.UninitializedParameter)
