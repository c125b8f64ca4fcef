"""Pair the blocks of two models, and the matrices in them that belong together."""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor, nn

from m2pt.pathway.blocks import (
    ALL_LINEAR,
    TARGET,
    Layers,
    Matrix,
    is_plain,
    matrices,
    own_modules,
)
from m2pt.pathway.fitting import Place, Unequal, fit, or_slice
from m2pt.pathway.layers import plain_class
from m2pt.pathway.layouts import layout
from m2pt.pathway.roles import FUSED, role_of
from m2pt.pathway.terms import PathwayError, listed
from m2pt.pathway.wrappers import BASE_LAYER, uncompiled, without_wrappers

Order: TypeAlias = Literal["normal", "reversed", "shuffled"]

_NUMBERS_OF_HEADS = ("num_heads", "num_attention_heads", "n_head", "n_heads", "heads", "nhead")


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


def pair_blocks(
    target: list[nn.Module],
    name: str,
    auxiliary: list[nn.Module],
    layers: Layers,
    order: Order,
    unequal: Unequal,
) -> Iterator[Pair]:
    """Yield each matrix of the target with the auxiliary's values, after checking that they match.

    Raises:
        PathwayError: see `attach`.
    """
    depth, other_depth = len(target), len(auxiliary)
    if depth and other_depth != depth and (unequal == "error" or not other_depth):
        raise PathwayError(
            f"{TARGET} has {depth} blocks{_class_of(target)}, the auxiliary {name!r} has {other_depth}"
            f"{_class_of(auxiliary)}; they must be equal{or_slice(other_depth > 0)}"
        )
    nearest = [round(i * (other_depth - 1) / max(depth - 1, 1)) for i in range(depth)]
    for i, position in enumerate(partners(depth, order)):
        j = nearest[position]
        own, other = (_Block(target[i], f"target block {i}"), _Block(auxiliary[j], f"{name!r} block {j}"))
        if unequal == "error":
            _check_heads(own, other)
        for targets, sources in _chosen(own, other, layers):
            for place, values in zip(targets, fit(targets, sources, unequal), strict=True):
                yield Pair(place.matrix, i, name, values)


def _class_of(blocks: list[nn.Module]) -> str:
    return f" ({plain_class(blocks[0]).__name__})" if blocks else ""


class _Block:
    """A block, its matrices by path, and what messages call it."""

    def __init__(self, module: nn.Module, where: str) -> None:
        self.module, self.where = module, where
        self.matrices = matrices(module)
        self.modules = {without_wrappers(path): inner for path, inner in module.named_modules()}

    @property
    def linear(self) -> list[str]:
        return [path for path, matrix in self.matrices.items() if matrix.is_linear]

    def check_linear(self) -> None:
        """Check that no linear layer would be left out unsaid.

        Raises:
            PathwayError: the weight of one is no parameter, as after weight_norm or pruning, or has no shape.
        """
        for path, module in own_modules(self.module):
            if isinstance(module, nn.Linear):
                self.matrix(path)

    def place(self, path: str, part: int = 0, parts: int = 1) -> Place:
        """Return the matrix at `path`, or one of equal parts of its rows.

        Raises:
            PathwayError: there is none.
        """
        matrix = self.matrix(path)
        parent = matrix.path.rpartition(".")[0]
        owner = self.modules[parent] if matrix.name == "weight" else matrix.module
        beside = [each for each in self.linear if each != matrix.path and each.rpartition(".")[0] == parent]
        taken = [self.matrices[each].shape[1] for each in beside]
        return Place(matrix, layout(owner, matrix.path, matrix.shape[0], taken), self.where, part, parts)

    def source(self, path: str, part: int = 0, parts: int = 1) -> Place:
        """Return the same of an auxiliary.

        Raises:
            PathwayError: there is none, or its values are not all that the layer computes with.
        """
        place = self.place(path, part, parts)
        own = place.matrix.parameter
        if not is_plain(own):
            raise PathwayError(
                f"{place.label} is a {type(own).__name__} of {own.dtype}, whose numbers alone are no "
                "weights: dequantize the auxiliary first"
            )
        if any(getattr(module, "merged", True) is False for module in self.wrappers(place.matrix)):
            raise PathwayError(
                f"{place.label} has adapters that are not merged: merge_and_unload() them first"
            )
        return place

    def wrappers(self, matrix: Matrix) -> list[nn.Module]:
        """Return the matrix's module and those of peft around it, which say whether LoRA is `merged`."""
        around = [matrix.module]
        for module in reversed(list(self.module.modules())):  # the innermost first
            if BASE_LAYER in module._modules and uncompiled(module.get_submodule(BASE_LAYER)) is around[-1]:
                around.append(module)
        return around

    def matrix(self, path: str) -> Matrix:
        """Return the matrix at `path`, with the wrappers around it in the path or without.

        Raises:
            PathwayError: the block has none there.
        """
        if (plain := without_wrappers(path)) in self.matrices:
            return self.matrices[plain]
        module = self.modules.get(plain)
        if isinstance(getattr(module, "weight", None), Tensor):
            raise PathwayError(
                f"{path!r} of {self.where} ({type(module).__name__}) has no weight matrix or kernel that is "
                "a parameter"
            )
        raise PathwayError(
            f"no layer {path!r} of {self.where} ({type(self.module).__name__}); choose layers=[...] among "
            f"those with a matrix or kernel: {listed(self.matrices)}"
        )


def _chosen(own: _Block, other: _Block, layers: Layers) -> Iterator[tuple[list[Place], list[Place]]]:
    """Yield the target's matrices with what the auxiliary has for them, one each unless some are fused."""
    if isinstance(layers, Mapping):
        for paths, names in layers.items():
            targets = [own.place(path) for path in ([paths] if isinstance(paths, str) else paths)]
            sources = [other.source(path) for path in ([names] if isinstance(names, str) else names)]
            yield targets, sources
        return
    chosen, used = _paths(own, layers), dict[tuple[str, int], str]()
    for path in chosen:
        sources = _partner(path, own, other, chosen)
        for source in sources:
            first = used.setdefault((source.matrix.path, source.part), path)
            if first != path:
                raise PathwayError(
                    f"{source.label} would help both {first!r} and {path!r} of {own.where}; name the pairs "
                    "in a mapping, layers={...}"
                )
        yield [own.place(path)], sources
    helping = {path for path, _ in used}
    if layers == ALL_LINEAR and (unused := [path for path in other.linear if path not in helping]):
        raise PathwayError(
            f"{other.where} has {listed(unused)} for which {own.where} has no partner among "
            f"{listed(own.linear)}; name the layers=[...] to attach"
        )


def _paths(own: _Block, layers: str | Iterable[str]) -> list[str]:
    if not isinstance(layers, str):
        return list(layers)
    if layers == ALL_LINEAR:
        own.check_linear()
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


def _partner(path: str, own: _Block, other: _Block, chosen: Sequence[str]) -> list[Place]:
    """Return what the auxiliary has at the same path, or else in the same role.

    Raises:
        PathwayError: it has neither.
    """
    plain = own.matrix(path).path
    if found := _candidates(plain, chosen, other):
        return [other.source(*each) for each in found]
    helped = [each for each in own.linear if _candidates(each, own.linear, other)]
    leave_out = f"leave it out, layers={helped}, or " if helped else ""
    raise PathwayError(
        f"{path!r} of {own.where} ({type(own.module).__name__}) has no partner in {other.where} "
        f"({type(other.module).__name__}), which has {listed(other.matrices)}; {leave_out}name all partners, "
        f"layers={{{path!r}: ..., ...}}"
    )


def _candidates(path: str, chosen: Sequence[str], other: _Block) -> list[tuple[str, int, int]]:
    """Return path, part and number of parts of each matrix of the auxiliary that belongs to the target's.

    A role counts if one matrix alone has it, of the auxiliary and of those that are chosen in the target.
    """
    if path in other.matrices:
        return [(path, 0, 1)]
    role, unique = role_of(path), _unique_roles(other.linear)
    if role not in _unique_roles(chosen):
        return []
    if role in unique:
        return [(unique[role], 0, 1)]
    for fused, parts in FUSED.items():
        if role == fused and all(part in unique for part in parts):
            return [(unique[part], 0, 1) for part in parts]
        if role in parts and fused in unique:
            return [(unique[fused], parts.index(role), len(parts))]
    return []


def _unique_roles(paths: Iterable[str]) -> dict[str, str]:
    """Return the path of each role that one path alone has."""
    found: dict[str, list[str]] = {}
    for path in paths:
        if role := role_of(without_wrappers(path)):
            found.setdefault(role, []).append(path)
    return {role: paths[0] for role, paths in found.items() if len(paths) == 1}


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
