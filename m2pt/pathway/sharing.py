"""Parameters that several modules share (tied weights), or that share memory."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from m2pt.pathway.sharding import is_distributed, local
from m2pt.pathway.terms import PathwayError, parameter
from m2pt.pathway.wrappers import without_wrappers

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Shared:
    """A layer's parameter that another module has too, with a full name in each."""

    layer: nn.Module
    name: str
    own: str
    other: str

    def untie(self) -> None:
        """Give the layer a parameter of its own, trained if the shared one is."""
        weight = parameter(self.layer, self.name)
        self.layer._parameters[self.name] = nn.Parameter(weight.detach().clone(), weight.requires_grad)


def find_shared(roots: Iterable[nn.Module], places: Iterable[tuple[nn.Module, str]]) -> list[Shared]:
    """Return those of the layers' parameters `places` that another module in `roots` has too.

    Parameters and buffers of their own that have memory in common count as well.
    """
    names: dict[tuple[int, str], str] = {}
    tensors: dict[tuple[int, str], Tensor] = {}
    for root in roots:
        for path, module in root.named_modules():
            for name, value in (*module._parameters.items(), *module._buffers.items()):
                key = id(module), name
                if value is not None and key not in names:
                    names[key], tensors[key] = f"{without_wrappers(path)}.{name}".lstrip("."), value
    others: dict[tuple[int, str], tuple[int, str]] = {}
    for first, second in overlapping(tensors):
        others.setdefault(first, second)
        others.setdefault(second, first)
    found = {(id(layer), name): layer for layer, name in places}
    return [
        Shared(layer, key[1], names[key], names[others[key]]) for key, layer in found.items() if key in others
    ]


def overlapping(tensors: Mapping[Key, Tensor]) -> Iterator[tuple[Key, Key]]:
    """Yield the keys of each two tensors that have elements of their memory in common."""
    stored: dict[object, list[tuple[int, int, Key]]] = {}
    for key, tensor in tensors.items():
        where = _storage(tensor)
        span = (0, 1) if where == id(tensor) else _span(local(tensor))
        stored.setdefault(where, []).append((*span, key))
    for spans in stored.values():
        begun: list[tuple[int, Key]] = []
        for start, end, key in sorted(spans, key=lambda span: span[0]):
            begun = [(other_end, other) for other_end, other in begun if other_end > start]
            yield from ((other, key) for _, other in begun if _overlap(tensors[other], tensors[key]))
            begun.append((end, key))


def _storage(tensor: Tensor) -> object:
    """Return what is equal for two tensors in one storage; the tensor's id if it has none."""
    if tensor.is_meta or isinstance(tensor, nn.UninitializedParameter):
        return id(tensor)
    try:
        start = local(tensor).untyped_storage().data_ptr()
    except RuntimeError:  # of a tensor without storage
        start = 0
    return (tensor.device, start) if start else id(tensor)


def _span(tensor: Tensor) -> tuple[int, int]:
    """Return the bytes of the storage from the first to behind the last element; one if there are none."""
    if not tensor.numel():
        return 0, 1
    first = int(tensor.storage_offset())
    last = first + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return first * tensor.itemsize, (last + 1) * tensor.itemsize


def _overlap(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors whose spans in one storage overlap have elements in common."""
    if first is second:
        return True
    first, second = local(first), local(second)
    if not first.numel() or not second.numel():
        return False
    if first.dtype != second.dtype or (first.is_contiguous() and second.is_contiguous()):
        return True
    return bool(torch.isin(_elements(first), _elements(second)).any())


def _elements(tensor: Tensor) -> Tensor:
    """Return the places of the tensor's elements in its storage."""
    places = torch.arange(_span(tensor)[1] // tensor.itemsize)
    return places.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).flatten()


def check_shared(
    shared: Iterable[Shared], untie: bool, labels: Mapping[tuple[int, str], str] | None = None
) -> None:
    """Refuse shared parameters, or with `untie` those alone that cannot be untied.

    Args:
        shared: the shared parameters.
        untie: whether each layer is going to be given its own.
        labels: what messages call a parameter, by `id(layer)` and name; its full name by default.

    Raises:
        PathwayError: there is such a parameter.
    """
    for each in shared:
        what = (labels or {}).get((id(each.layer), each.name), f"{each.own!r}")
        if not untie:
            raise PathwayError(
                f"the weight {what} is also {each.other!r}, or shares memory with it: merging would change "
                "that too; untie=True gives the layer a weight of its own"
            )
        if is_distributed(parameter(each.layer, each.name)):
            raise PathwayError(
                f"the weight {what} is also {each.other!r}, and fully_shard keeps them one: untie before it"
            )
