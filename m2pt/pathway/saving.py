"""Save pathways to a small file of their own, and attach them again without the auxiliary."""

import os
import pickle
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.pathway.attaching import Part, install
from m2pt.pathway.blocks import Matrix
from m2pt.pathway.layers import PathwayError, attached_layers, attached_names, scoped_blocks, terms
from m2pt.pathway.sharding import reshard, whole

FORMAT = "m2pt pathways 1"


def save_pathways(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the matrices A, the scales λ and where they belong to `path`, atomically.

    The weights W are not in the file: save the target's own state too, unless W was frozen. Of a sharded
    model every process has to call this; the first one writes.

    Raises:
        PathwayError: the model has no pathways.
    """
    layers: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    reshard(layer for _, layer in attached_layers(model))
    for layer_name, layer in attached_layers(model):
        for name in attached_names(layer):
            for auxiliary, (matrix, scale) in terms(layer, name).items():
                layers.setdefault(layer_name, {}).setdefault(name, {})[auxiliary] = {
                    "matrix": _copy(matrix),
                    "scale": _copy(scale),
                    "scale_trainable": scale.requires_grad,
                    "matrix_trainable": matrix.requires_grad,
                }
    if not layers:
        raise PathwayError("the model has no pathways to save")
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_rank()
    ):
        return
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as file:
            torch.save({"format": FORMAT, "layers": layers, "blocks": scoped_blocks(model)}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_pathways(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Attach the pathways that `save_pathways` has written, to the layers of the same names and in place.

    What DistributedDataParallel and torch.compile add to names, `module.` and `_orig_mod.`, may differ.

    Raises:
        PathwayError: the file is no such file, or a layer is missing, has another shape or already has a
            pathway of that name. The model is unchanged in that case.
        OSError: the file cannot be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise PathwayError(f"{path} is no file of save_pathways: {error}") from error
    try:
        entries = list(_entries(content))
        blocks = [str(name) for name in content["blocks"]]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise PathwayError(f"{path} is no file of save_pathways") from error
    modules = {_unwrapped(name): module for name, module in model.named_modules()}
    modules |= dict(model.named_modules())

    def find(name: str) -> nn.Module | None:
        return modules.get(name, modules.get(_unwrapped(name)))

    parts = []
    for layer_name, name, auxiliary, saved in entries:
        label = f"{layer_name!r}" if name == "weight" else f"'{layer_name}.{name}'"
        module = find(layer_name)
        own = None if module is None else module._parameters.get(name)
        if module is None or own is None:
            raise PathwayError(f"{path}: the model has no layer {label} with a parameter {name!r}")
        if saved.matrix.shape != own.shape:
            raise PathwayError(
                f"{path}: {label} has a weight of shape {tuple(own.shape)}, the pathway {auxiliary!r} one of "
                f"shape {tuple(saved.matrix.shape)}"
            )
        target = Matrix(layer_name, module, name)
        parts.append(
            Part(
                target,
                label,
                auxiliary,
                saved.matrix,
                saved.scale,
                saved.scale_trainable,
                saved.matrix_trainable,
            )
        )
    found = [module for name in blocks if (module := find(name)) is not None]
    install(parts, found if len(found) == len(blocks) else [model], [model])


@dataclass(frozen=True)
class _Saved:
    """What a file says of one auxiliary's matrix for one parameter."""

    matrix: Tensor
    scale: Tensor
    scale_trainable: bool
    matrix_trainable: bool = True

    def __post_init__(self) -> None:
        """Check that the scale belongs to the matrix."""
        if self.scale.ndim != 1 or not len(self.scale) or self.matrix.shape[0] % len(self.scale):
            raise ValueError("the scale does not fit the matrix")


def _entries(content: Any) -> Iterator[tuple[str, str, str, _Saved]]:
    """Yield the layer, the parameter, the auxiliary and what is saved; any error is the file's."""
    if content["format"] != FORMAT:
        raise ValueError("another format")
    for layer_name, parameters in content["layers"].items():
        for name, pathways in parameters.items():
            for auxiliary, saved in pathways.items():
                yield layer_name, name, auxiliary, _Saved(**saved)


def _unwrapped(name: str) -> str:
    """Return a module's name without what DistributedDataParallel and torch.compile put before it."""
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    return ".".join(parts[parts[0] == "module" :]) if parts else ""


def _copy(value: Tensor) -> Tensor:
    return whole(value.detach()).cpu().clone()
