"""Parameters that several modules share (tied weights)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

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

    Parameters of their own that have the same memory count as well.
    """
    found: dict[object, dict[tuple[int, str], str]] = {}
    for root in roots:
        for path, module in root.named_modules():
            path = without_wrappers(path)
            for name, value in module._parameters.items():
                if value is not None:
                    owners = found.setdefault(_memory(value), {})
                    owners.setdefault((id(module), name), f"{path}.{name}".lstrip("."))
    shared = {}
    for layer, name in places:
        owners = dict(found[_memory(parameter(layer, name))])
        own = owners.pop((id(layer), name))
        if owners:
            shared[(id(layer), name)] = Shared(layer, name, own, next(iter(owners.values())))
    return list(shared.values())


def _memory(value: nn.Parameter) -> object:
    """Return what is equal for two parameters in the same memory; the parameter's id if it has none."""
    if value.is_meta or isinstance(value, nn.UninitializedParameter):
        return id(value)
    try:
        start = local(value).data_ptr()
    except RuntimeError:  # of a tensor without storage
        start = 0
    return (value.device, start) if start else id(value)


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
                f"the weight {what} is also {each.other!r}: merging would change that too; untie=True gives "
                "the layer a weight of its own"
            )
        if is_distributed(parameter(each.layer, each.name)):
            raise PathwayError(
                f"the weight {what} is also {each.other!r}, and fully_shard keeps them one: untie before it"
            )
