"""Save pathways to a small file of their own, and attach them again without the auxiliary."""

import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.pathway.attaching import Part, install
from m2pt.pathway.layers import PathwayError, attached_layers, attached_names, scoped_blocks, terms
from m2pt.pathway.matching import Matrix
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
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            torch.save({"format": FORMAT, "layers": layers, "blocks": scoped_blocks(model)}, file)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def load_pathways(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Attach the pathways that `save_pathways` has written, to the layers of the same names and in place.

    Raises:
        PathwayError: the file is no such file, or a layer is missing, has another shape or already has a
            pathway of that name. The model is unchanged in that case.
        OSError: the file cannot be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise PathwayError(f"{path} is no file of save_pathways: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PathwayError(f"{path} is no file of save_pathways")
    modules = dict(model.named_modules())
    parts = []
    for layer_name, parameters in content["layers"].items():
        for name, pathways in parameters.items():
            label = f"{layer_name!r}" if name == "weight" else f"'{layer_name}.{name}'"
            module = modules.get(layer_name)
            own = None if module is None else module._parameters.get(name)
            if module is None or own is None:
                raise PathwayError(f"{path}: the model has no layer {label} with a parameter {name!r}")
            for auxiliary, saved in pathways.items():
                matrix, scale = saved["matrix"], saved["scale"]
                if matrix.shape != own.shape:
                    raise PathwayError(
                        f"{path}: {label} has a weight of shape {tuple(own.shape)}, the pathway "
                        f"{auxiliary!r} one of shape {tuple(matrix.shape)}"
                    )
                target = Matrix(layer_name, module, name)
                parts.append(Part(target, label, auxiliary, matrix, scale, saved["scale_trainable"]))
    blocks = [modules[name] for name in content.get("blocks", [""]) if name in modules]
    install(parts, blocks, [model])


def _copy(value: Tensor) -> Tensor:
    return whole(value.detach()).cpu().clone()
