"""Give the auxiliary's matrices the shapes of the target's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from m2pt.pathway.blocks import Matrix
from m2pt.pathway.layouts import DOUBLE, STACKED, UNEVEN, looks_fused
from m2pt.pathway.roles import FUSED, role_of
from m2pt.pathway.terms import PathwayError, listed

Unequal: TypeAlias = Literal["error", "slice"]


@dataclass(frozen=True)
class Place:
    """A matrix of the target or the auxiliary, or one of the equal parts of its output rows.

    `layout` is how the rows of a fused one are arranged, `where` what messages call its block.
    """

    matrix: Matrix
    layout: str | None
    where: str
    part: int = 0
    parts: int = 1

    @property
    def rows(self) -> Tensor:
        """The values with one row for each output."""
        return self.matrix.values.chunk(self.parts)[self.part]

    @property
    def label(self) -> str:
        """Return how messages call it."""
        return f"{self.matrix.path!r} of {self.where}"


def fit(targets: Sequence[Place], sources: Sequence[Place], unequal: Unequal) -> list[Tensor]:
    """Return values for each target in the orientation and the shape of its parameter.

    Of several sources the rows lie below each other; several targets share the rows of one source.

    Raises:
        PathwayError: shapes or arrangements of rows differ, or slicing would mix matrices that are fused.
    """
    _check_layouts(targets, sources)
    found = _sliced(targets, sources) if unequal == "slice" else _equal(targets, sources)
    return [
        value.mT if target.matrix.is_transposed else value
        for target, value in zip(targets, found, strict=True)
    ]


def _check_layouts(targets: Sequence[Place], sources: Sequence[Place]) -> None:
    """Refuse fused matrices whose rows are arranged otherwise on the other side."""
    if len(targets) == len(sources) == 1 and sources[0].parts == 1:
        (target,), (source,) = targets, sources
        if target.layout and source.layout and target.layout != source.layout:
            raise PathwayError(
                f"{target.label} has {target.layout}, {source.label} has {source.layout}: their rows do not "
                "correspond; choose other layers=[...]"
            )
        return
    for place in (*targets, *sources):
        if place.layout not in (None, STACKED, UNEVEN, DOUBLE):
            raise PathwayError(
                f"{place.label} has {place.layout}, so separate matrices cannot lie below each other in it; "
                "choose other layers=[...]"
            )
        if place.matrix.shape[0] % place.parts:
            raise PathwayError(
                f"{place.label} has {place.matrix.shape[0]} rows, which are no {place.parts} equal parts"
            )


def _equal(targets: Sequence[Place], sources: Sequence[Place]) -> Sequence[Tensor]:
    """Return the sources' rows as they are, after checking that the shapes are equal."""
    values = torch.cat([source.rows for source in sources])
    parts: Sequence[Tensor] = [values]
    if len(targets) > 1:
        sizes = [target.matrix.shape[0] for target in targets]
        if len(values) != sum(sizes):
            raise PathwayError(
                f"{_names(targets)} have {sizes} output rows, the matrices of {sources[0].where} "
                f"{len(values)} in all; they must be equal"
            )
        parts = values.split(sizes)
    for target, part in zip(targets, parts, strict=True):
        if part.shape != target.matrix.shape:
            turned = part.ndim == 2 and part.mT.shape == target.matrix.shape
            raise PathwayError(
                f"{target.matrix.path!r} of {target.where} has a weight of shape "
                f"{tuple(target.matrix.shape)}, {_names(sources)} has one of shape {tuple(part.shape)}; they "
                f"must be equal{'; one of them is transposed' if turned else or_slice(True)}"
            )
    return parts


def _sliced(targets: Sequence[Place], sources: Sequence[Place]) -> list[Tensor]:
    """Return the leading rows and columns of each source, or of each part of a fused one."""
    for place in (*targets, *sources):
        if place.layout == UNEVEN and (place.parts > 1 or len(targets) + len(sources) > 2):
            _check_one(place)
    if len(targets) == len(sources) == 1:
        (target,), (source,) = targets, sources
        rows, shape = source.rows, target.matrix.shape
        if rows.shape == shape:
            return [rows]
        roles = {role_of(place.matrix.path) or "" for place in (target, source)}
        stacked = source.parts == 1 and source.layout == target.layout == STACKED
        parts = len(FUSED.get(roles.pop(), ())) if stacked and len(roles) == 1 else 0
        if not parts:
            _check_one(target)
            if source.parts == 1:
                _check_one(source)
        return [_cut(rows, shape, parts or 1, target, source)]
    if len(targets) == 1:
        target = targets[0]
        own = torch.empty(target.matrix.shape, device="meta")
        if len(own) % len(sources):
            raise PathwayError(f"{target.label} has {len(own)} rows, which are no {len(sources)} equal parts")
        shapes = [part.shape for part in own.chunk(len(sources))]
        cut = [_cut(each.rows, shape, 1, target, each) for each, shape in zip(sources, shapes, strict=True)]
        return [torch.cat(cut)]
    if len(sources) == 1:
        source = sources[0]
        if len(source.rows) % len(targets):
            raise PathwayError(
                f"{source.label} has {len(source.rows)} rows, which are no {len(targets)} equal parts"
            )
        sources = [
            Place(source.matrix, source.layout, source.where, part, len(targets))
            for part in range(len(targets))
        ]
    if len(sources) != len(targets):
        raise PathwayError(f"{_names(targets)} and {_names(sources)} are not equally many")
    pairs = zip(targets, sources, strict=True)
    return [_cut(source.rows, target.matrix.shape, 1, target, source) for target, source in pairs]


def _check_one(place: Place) -> None:
    """Refuse to slice what is several matrices in one."""
    if place.layout is not None or looks_fused(place.matrix.path):
        arrangement = f", {place.layout}" if place.layout else ""
        raise PathwayError(
            f"{place.label} is fused{arrangement}: slicing would mix its parts; choose other layers=[...]"
        )


def _cut(values: Tensor, shape: torch.Size, parts: int, target: Place, source: Place) -> Tensor:
    """Return the leading rows and columns of each of equal parts, with zeros where there are none."""
    is_stack = target.matrix.is_stack and values.shape != shape
    if is_stack or values.ndim != len(shape) or values.shape[2:] != shape[2:]:
        raise PathwayError(
            f"{target.label} has a weight of shape {tuple(shape)}, {source.label} has one of shape "
            f"{tuple(values.shape)}; unequal='slice' fits rows and columns of single matrices alone"
        )
    pieces = zip(values.chunk(parts), torch.empty(shape, device="meta").chunk(parts), strict=True)
    return torch.cat([_corner(piece, like.shape) for piece, like in pieces])


def _names(places: Sequence[Place]) -> str:
    return f"{listed([place.matrix.path for place in places])} of {places[0].where}"


def _corner(values: Tensor, shape: torch.Size) -> Tensor:
    """Return the leading entries along each dimension, and zeros where there are none."""
    if values.shape == shape:
        return values
    common = tuple(slice(min(a, b)) for a, b in zip(values.shape, shape, strict=True))
    made = values.new_zeros(shape)
    made[common] = values[common]
    return made


def or_slice(possible: bool) -> str:
    """Return the hint at `unequal`, if it would help."""
    return ", or choose unequal='slice'" if possible else ""
