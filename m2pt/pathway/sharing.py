"""Parameters that several modules share (tied weights), or that share memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from m2pt.pathway.sharding import is_distributed, local
from m2pt.pathway.terms import PathwayError, parameter
from m2pt.pathway.wrappers import without_wrappers


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
    found: dict[object, dict[tuple[int, str], tuple[str, Tensor]]] = {}
    for root in roots:
        for path, module in root.named_modules():
            for name, value in (*module._parameters.items(), *module._buffers.items()):
                if value is not None:
                    full_name = f"{without_wrappers(path)}.{name}".lstrip(".")
                    found.setdefault(storage(value), {}).setdefault((id(module), name), (full_name, value))
    shared = {}
    for layer, name in places:
        weight, key = parameter(layer, name), (id(layer), name)
        owners = found[storage(weight)]
        others = (owner for other, owner in owners.items() if other != key)
        for other_name, value in others:
            if overlap(weight, value):
                shared[key] = Shared(layer, name, owners[key][0], other_name)
                break
    return list(shared.values())


def storage(value: Tensor) -> object:
    """Return what is equal for two tensors in one storage; the tensor's id if it has none."""
    if value.is_meta or isinstance(value, nn.UninitializedParameter):
        return id(value)
    try:
        start = local(value).untyped_storage().data_ptr()
    except RuntimeError:  # of a tensor without storage
        start = 0
    return (value.device, start) if start else id(value)


def overlap(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors in one storage have elements in common."""
    if first is second:
        return True
    first, second = local(first), local(second)
    (start, end), (other_start, other_end) = _span(first), _span(second)
    if end <= other_start or other_end <= start:
        return False
    if first.dtype != second.dtype or (first.is_contiguous() and second.is_contiguous()):
        return True
    return bool(torch.isin(_elements(first), _elements(second)).any())


def _span(tensor: Tensor) -> tuple[int, int]:
    """Return the bytes of the storage from the first to behind the last element of the tensor."""
    if not tensor.numel():
        return 0, 0
    first = int(tensor.storage_offset())
    last = first + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return first * tensor.itemsize, (last + 1) * tensor.itemsize


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
