"""Find the blocks of two models and the matrices in them, and pair those that belong together."""

import random
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from m2pt.pathway.layers import PathwayError, effective_weight, plain_class
from m2pt.pathway.roles import FUSED, role_of
from m2pt.pathway.sharding import is_distributed, whole

Blocks: TypeAlias = nn.Module | Iterable[nn.Module]
Layers: TypeAlias = str | Iterable[str] | Mapping[str | tuple[str, ...], str | Iterable[str]]
Order: TypeAlias = Literal["normal", "reversed", "shuffled"]

ALL_LINEAR = "all-linear"

_NUMBERS_OF_HEADS = ("num_heads", "num_attention_heads", "n_head", "n_heads", "heads", "nhead")
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


@dataclass(frozen=True)
class Pair:
    """A matrix of the target and the values that the auxiliary `auxiliary` has for it, of the same shape."""

    target: Matrix
    block: int
    auxiliary: str
    values: Tensor

    @property
    def label(self) -> str:
        """Return how messages call the target's matrix."""
        return f"{self.target.path!r} of target block {self.block}"


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


@dataclass(frozen=True)
class Source:
    """A matrix of the auxiliary, or one of the equal parts of its output rows."""

    matrix: Matrix
    part: int = 0
    parts: int = 1

    @property
    def rows(self) -> Tensor:
        """The values with one row for each output."""
        return self.matrix.values.chunk(self.parts)[self.part]


def _source(block: "_Block", path: str, part: int = 0, parts: int = 1) -> Source:
    """Return a matrix of the auxiliary.

    Raises:
        PathwayError: there is none, or its values are not all that the layer computes with.
    """
    matrix = block.matrix(path)
    if not is_plain(matrix.parameter):
        raise PathwayError(
            f"{path!r} of {block.where} is a {type(matrix.parameter).__name__} of {matrix.parameter.dtype}, "
            "whose numbers alone are no weights: dequantise the auxiliary first"
        )
    if any(getattr(module, "merged", True) is False for module in block.wrappers(matrix)):
        raise PathwayError(
            f"{path!r} of {block.where} has adapters that are not merged: merge_and_unload() them first"
        )
    return Source(matrix, part, parts)


def pair_blocks(
    target: list[nn.Module],
    name: str,
    auxiliary: list[nn.Module],
    layers: Layers,
    order: Order,
    unequal: Literal["error", "slice"],
) -> Iterator[Pair]:
    """Yield each matrix of the target with the auxiliary's values, after checking that they match.

    Raises:
        PathwayError: see `attach`.
    """
    depth, other_depth = len(target), len(auxiliary)
    if depth and other_depth != depth and (unequal == "error" or not other_depth):
        raise PathwayError(
            f"the target has {depth} blocks, the auxiliary {name!r} has {other_depth}; they must be equal"
            + _or_slice(other_depth)
        )
    nearest = [round(i * (other_depth - 1) / max(depth - 1, 1)) for i in range(depth)]
    for i, position in enumerate(partners(depth, order)):
        j = nearest[position]
        own, other = (_Block(target[i], f"target block {i}"), _Block(auxiliary[j], f"{name!r} block {j}"))
        if unequal == "error":
            _check_heads(own, other)
        for targets, sources in _chosen(own, other, layers):
            values = torch.cat([source.rows for source in sources])
            for matrix, part in zip(targets, _split(values, targets, own, other), strict=True):
                label = listed([source.matrix.path for source in sources])
                fitted = _fitted(matrix, part, unequal, own.where, f"{label} of {other.where}")
                yield Pair(matrix, i, name, fitted)


class _Block:
    """A block, its matrices by path, and what messages call it."""

    def __init__(self, module: nn.Module, where: str) -> None:
        self.module, self.where = module, where
        self.matrices = matrices(module)

    @property
    def linear(self) -> list[str]:
        return [path for path, matrix in self.matrices.items() if matrix.is_linear]

    @property
    def roles(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in self.linear:
            if role := role_of(path):
                found.setdefault(role, []).append(path)
        return found

    def wrappers(self, matrix: Matrix) -> list[nn.Module]:
        """Return the matrix's module and those of peft around it, which say whether LoRA is `merged`."""
        around, path = [matrix.module], matrix.path
        while path.split(".")[-1] == "base_layer":
            path = path.rpartition(".")[0]
            around.append(self.module.get_submodule(path))
        return around

    def matrix(self, path: str) -> Matrix:
        """Return the matrix at `path`; that of the wrapped layer, if peft has wrapped it."""
        for each in (path, f"{path}.base_layer" if path else "base_layer"):
            if each in self.matrices:
                return self.matrices[each]
        module = dict(self.module.named_modules()).get(path)
        if isinstance(getattr(module, "weight", None), Tensor):
            raise PathwayError(
                f"{path!r} of {self.where} ({type(module).__name__}) has no weight matrix or kernel that is "
                "a parameter"
            )
        raise PathwayError(
            f"no layer {path!r} of {self.where} ({type(self.module).__name__}); choose layers=[...] among "
            f"those with a matrix or kernel: {listed(self.matrices)}"
        )


def _chosen(own: _Block, other: _Block, layers: Layers) -> Iterator[tuple[list[Matrix], list[Source]]]:
    """Yield the target's matrices with what the auxiliary has for them, one each unless some are fused."""
    if isinstance(layers, Mapping):
        for paths, names in layers.items():
            targets = [own.matrix(path) for path in ([paths] if isinstance(paths, str) else paths)]
            yield (
                targets,
                [_source(other, path) for path in ([names] if isinstance(names, str) else names)],
            )
        return
    used: set[str] = set()
    for path in _paths(own, layers):
        sources = _partner(path, own, other)
        used |= {source.matrix.path for source in sources}
        yield [own.matrix(path)], sources
    if layers == ALL_LINEAR and (unused := [path for path in other.linear if path not in used]):
        raise PathwayError(
            f"{other.where} has {listed(unused)} for which {own.where} has no partner among "
            f"{listed(own.linear)}; name the layers=[...] to attach"
        )


def _paths(own: _Block, layers: str | Iterable[str]) -> list[str]:
    if not isinstance(layers, str):
        return list(layers)
    if layers == ALL_LINEAR:
        return own.linear
    try:
        found = [path for path in own.matrices if re.fullmatch(layers, path)]
    except re.error as error:
        raise PathwayError(f"layers={layers!r} is not a regular expression: {error}") from None
    if not found:
        raise PathwayError(
            f"layers={layers!r} matches no layer of {own.where} ({type(own.module).__name__}); it has "
            f"{listed(own.matrices)}"
        )
    return found


def _partner(path: str, own: _Block, other: _Block) -> list[Source]:
    """Return what the auxiliary has at the same path, or else in the same role."""
    if path in other.matrices or not (role := role_of(own.matrix(path).path)):
        return [_source(other, path)]
    unique = {role: paths[0] for role, paths in other.roles.items() if len(paths) == 1}
    if role in unique:
        return [_source(other, unique[role])]
    for fused, parts in FUSED.items():
        if role == fused and all(part in unique for part in parts):
            return [_source(other, unique[part]) for part in parts]
        if role in parts and fused in unique:
            return [_source(other, unique[fused], parts.index(role), len(parts))]
    return [_source(other, path)]


def _split(values: Tensor, targets: list[Matrix], own: _Block, other: _Block) -> Sequence[Tensor]:
    """Return the rows of each of several targets; all of them for a single one."""
    if len(targets) == 1:
        return [values]
    sizes = [target.shape[0] for target in targets]
    if values.shape[0] != sum(sizes):
        raise PathwayError(
            f"{listed([target.path for target in targets])} of {own.where} have {sizes} output rows, the "
            f"matrices of {other.where} {values.shape[0]} in all; they must be equal"
        )
    return values.split(sizes)


def _fitted(matrix: Matrix, values: Tensor, unequal: str, where: str, source: str) -> Tensor:
    """Return the auxiliary's values in the orientation and the shape of the target's parameter."""
    shape = matrix.shape
    if unequal == "slice" and values.ndim == len(shape):
        parts = len(FUSED.get(role_of(matrix.path) or "", "_"))
        own = torch.empty(shape, device="meta").chunk(parts)
        pieces = zip(values.chunk(parts), own, strict=True)
        values = torch.cat([_corner(piece, like.shape) for piece, like in pieces])
    elif values.shape != shape:
        hint = "" if values.ndim != 2 or values.mT.shape != shape else "; one of them is transposed"
        raise PathwayError(
            f"{matrix.path!r} of {where} has a weight of shape {tuple(shape)}, {source} has one of shape "
            f"{tuple(values.shape)}; they must be equal{hint}{_or_slice(values.ndim == len(shape))}"
        )
    return values.mT if matrix.is_transposed else values


def _corner(values: Tensor, shape: torch.Size) -> Tensor:
    """Return the leading entries along each dimension, and zeros where there are none."""
    if values.shape == shape:
        return values
    common = tuple(slice(min(a, b)) for a, b in zip(values.shape, shape, strict=True))
    made = values.new_zeros(shape)
    made[common] = values[common]
    return made


def _or_slice(possible: object) -> str:
    return ", or choose unequal='slice'" if possible else ""


def _check_heads(own: _Block, other: _Block) -> None:
    heads = [_heads(block.module) for block in (own, other)]
    if all(heads) and heads[0] != heads[1]:
        raise PathwayError(
            f"{own.where} has attention with {heads[0]} heads, {other.where} with {heads[1]}; they must be "
            "equal, or choose unequal='slice', which pairs the matrices as they are"
        )


def _heads(block: nn.Module) -> int | None:
    """Return the number of attention heads, if the modules of the block or their configs say it."""
    modules = list(block.modules())
    configs = [config for module in modules if (config := vars(module).get("config")) is not None]
    for each in (*modules, *configs):
        for name in _NUMBERS_OF_HEADS:
            value = vars(each).get(name) if isinstance(each, nn.Module) else getattr(each, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def partners(depth: int, order: Order) -> list[int]:
    """Return the index of the auxiliary block for each target block."""
    normal = list(range(depth))
    if order == "shuffled":
        generator = random.Random(depth)
        drawn = generator.sample(normal, depth)
        while drawn == normal and depth > 1:
            drawn = generator.sample(normal, depth)
        return drawn
    return normal if order == "normal" else normal[::-1]


def listed(names: Iterable[str]) -> str:
    """Return names as messages write them: `'fc1', 'fc2'`."""
    return ", ".join(repr(name) for name in names) or "none"
