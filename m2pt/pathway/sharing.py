"""Parameters that several modules share (tied weights)."""

from collections.abc import Iterable

from torch import nn


class Owners:
    """The modules in `roots` that have each parameter, with the parameter's full names."""

    def __init__(self, roots: Iterable[nn.Module]) -> None:
        self._found: dict[int, dict[tuple[int, str], str]] = {}
        for root in roots:
            for path, module in root.named_modules():
                for name, parameter in module._parameters.items():
                    if parameter is not None:
                        places = self._found.setdefault(id(parameter), {})
                        places.setdefault((id(module), name), f"{path}.{name}".lstrip("."))

    def names(self, module: nn.Module, name: str) -> tuple[str, list[str]]:
        """Return the full name of a module's parameter, and the names that it has in other modules."""
        places = dict(self._found[id(module._parameters[name])])
        return places.pop((id(module), name)), list(places.values())
