"""Find the blocks of a model and the matrices in them."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from m2pt.pathway.layers import PathwayError, effective_weight, plain_class
from m2pt.pathway.sharding import is_distributed, whole

Blocks: TypeAlias = nn.Module | Iterable[nn.Module]
Layers: TypeAlias = str | Iterable[str] | Mapping[str | tuple[str, ...], str | Iterable[str]]

ALL_LINEAR = "all-linear"

_MODEL_HEADS = {"head", "heads", "classifier", "lm_head", "score", "logits"}


@dataclass(frozen=True)
class Matrix:
    """One parameter of a block: a matrix or the kernel of a convolution."""

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
        return any(base.__name__ == "Conv1D" for base in type(self.module).__mro__)

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
        """Whether it multiplies features, as opposed to an embedding, a table or a kernel."""
        return (
            self.parameter.ndim == 2
            and not isinstance(self.module, nn.Embedding | nn.EmbeddingBag)
            and (self.name == "weight" or self.name.endswith("_weight"))
        )


def find_blocks(given: Blocks, what: str, layers: Layers) -> list[nn.Module]:
    """Return the blocks in `given`: a list, a container, a whole model, or a module that is the only block.

    In a model they are the longest series of equal modules with matrices, `model.blocks` for example. A
    decoder beside one encoder is left out.

    Raises:
        PathwayError: the model has several such series, or none where "all-linear" would take the head: in a
            convolutional network, an `nn.Sequential` of different modules, or beside a layer named `head`.
    """
    if not isinstance(given, nn.Module):
        return list(given)
    children = list(given.children())
    if isinstance(given, nn.ModuleList):
        return children
    if isinstance(given, nn.Sequential):
        if len(children) == 1:
            return find_blocks(children[0], what, layers)
        if len({plain_class(child) for child in children}) <= 1:
            return children
    series = {path: list(module.children()) for path, module in given.named_modules() if _is_series(module)}
    outer = {
        path: blocks
        for path, blocks in series.items()
        if not any(path.startswith(f"{other}.") for other in series if other)
    }
    encoders = {path: blocks for path, blocks in outer.items() if "decoder" not in path.lower()}
    found = encoders if len(encoders) == 1 else outer
    if len(found) > 1:
        listed = ", ".join(
            f"{path!r} ({len(blocks)} x {plain_class(blocks[0]).__name__})" for path, blocks in found.items()
        )
        raise PathwayError(f"{what} has several series of blocks: {listed}; pass the blocks of one of them")
    if found:
        return next(iter(found.values()))
    if layers == ALL_LINEAR:
        _check_single(given, what)
    elif isinstance(given, nn.Sequential):
        return children
    return [given]


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
    blocks = list(module.children())
    return (
        isinstance(module, nn.ModuleList | nn.Sequential)
        and len({plain_class(block) for block in blocks}) == 1
        and sum(matrix.is_linear for matrix in matrices(blocks[0]).values()) > 1
    )


def matrices(block: nn.Module) -> dict[str, Matrix]:
    """Return the matrices and kernels of a block: `mlp.fc1` for its `weight`, `attn.in_proj_weight`."""
    found = {}
    for module_path, module in block.named_modules():
        if "pathways" in module_path.split("."):
            continue
        for name, parameter in module._parameters.items():
            if parameter is not None and not _is_lazy(parameter) and parameter.ndim >= 2:
                path = module_path if name == "weight" else f"{module_path}.{name}".lstrip(".")
                found[path] = Matrix(path, module, name)
    return found


def is_plain(parameter: Tensor) -> bool:
    """Return whether a parameter's own numbers are the weights: it is not quantised, nor of another class."""
    return (
        parameter.is_floating_point()
        and parameter.dtype.itemsize > 1  # a float8 has its scale elsewhere
        and (type(parameter) is nn.Parameter or is_distributed(parameter))
    )


def warn_of_stacks(blocks: Iterable[nn.Module]) -> None:
    """Say once which matrices "all-linear" leaves out, of the first block that has such."""
    for i, block in enumerate(blocks):
        found = matrices(block)
        if stacks := [path for path, matrix in found.items() if matrix.is_stack]:
            linear = [path for path, matrix in found.items() if matrix.is_linear]
            warnings.warn(
                f"'all-linear' leaves out the stacked matrices {listed(stacks)} of target block {i}; to "
                f"attach them too, name the layers={linear + stacks}",
                stacklevel=3,
            )
            return


def _is_lazy(parameter: Tensor) -> bool:
    return isinstance(parameter, nn.UninitializedParameter)


def listed(names: Iterable[str]) -> str:
    """Return names as messages write them: `'fc1', 'fc2'`."""
    return ", ".join(repr(name) for name in names) or "none"
