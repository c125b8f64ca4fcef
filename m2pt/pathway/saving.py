"""Save pathways to a small file of their own, and attach them again without the auxiliary."""

import os
import pickle
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from m2pt.pathway.attaching import Part, install
from m2pt.pathway.blocks import Matrix
from m2pt.pathway.earlier import check_flattened
from m2pt.pathway.layers import attached_layers, scoped_blocks
from m2pt.pathway.sharding import reshard, whole
from m2pt.pathway.terms import PathwayError, attached_names, parameter, terms
from m2pt.pathway.wrappers import without_wrappers

FORMAT = "m2pt pathways 1"

Model = TypeVar("Model", bound=nn.Module)


def save_pathways(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the matrices A, the scales λ and where they belong to `path`, atomically, in torch's format.

    The weights W are not in the file, only a fingerprint by which `load_pathways` knows others: save the
    target's own state too, unless W was frozen. Of a sharded model every process has to call this; the first
    one writes.

    Raises:
        PathwayError: the model has no pathways, or the name is that of a file of safetensors.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        raise PathwayError(
            f"{path}: the file is in torch's format, so name it {path.with_suffix('.pt').name}"
        )
    layers: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    reshard(layer for _, layer in attached_layers(model))
    for path_in_model, layer in attached_layers(model):
        layer_name = without_wrappers(path_in_model)
        for name in attached_names(layer):
            fingerprint = _fingerprint(parameter(layer, name))
            for auxiliary, (matrix, scale) in terms(layer, name).items():
                layers.setdefault(layer_name, {}).setdefault(name, {})[auxiliary] = {
                    "matrix": _copy(matrix),
                    "scale": _copy(scale),
                    "scale_trainable": scale.requires_grad,
                    "matrix_trainable": matrix.requires_grad,
                    "of": fingerprint,
                    "rows_are_inputs": Matrix("", layer, name).rows_are_inputs,
                }
    if not layers:
        raise PathwayError("the model has no pathways to save")
    blocks = [without_wrappers(name) for name in scoped_blocks(model)]
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_rank()
    ):
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} for {path.name} does not exist")
    try:
        with temporary.open("xb") as file:
            torch.save({"format": FORMAT, "layers": layers, "blocks": blocks}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_pathways(model: Model, path: str | os.PathLike[str], *, untie: bool = False) -> Model:
    """Attach the pathways that `save_pathways` has written, to the layers of the same names and in place.

    What DistributedDataParallel, torch.compile and peft add to names may differ: `module.`, `_orig_mod.`,
    `base_model.model.` and `.base_layer`. A and λ take the dtype of W, but a λ that was kept in a wider dtype
    than A keeps it, as long as that is wider than that of W. The weights W have to be those that
    the pathways were trained beside; if they are others in the same dtype, there is a warning.

    Args:
        model: the model.
        path: the file.
        untie: gives a layer whose weight is shared with another module its own, instead of an error.

    Returns:
        The model.

    Raises:
        PathwayError: the file is no such file, or a layer is missing, has another shape or already has a
            pathway of that name. The model is unchanged in that case.
        OSError: the file cannot be read.
    """
    check_flattened([model])
    try:
        with Path(path).open("rb") as file:  # by a path torch would choose the format by its suffix
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise PathwayError(f"{path} is no file of save_pathways: {error}") from error
    try:
        entries = list(_entries(content))
        blocks = [str(name) for name in content["blocks"]]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise PathwayError(f"{path} is no file of save_pathways") from error
    # of one in a wrapper the layer, since the innermost comes last
    modules = {without_wrappers(name): module for name, module in model.named_modules()}
    unwrapped = {_unwrapped(name): module for name, module in modules.items()}

    def find(name: str, parameter: str | None = None) -> nn.Module | None:
        named = modules.get(without_wrappers(name)), unwrapped.get(_unwrapped(name))
        found = [each for each in named if each is not None]
        return next((each for each in found if parameter is None or parameter in each._parameters), None)

    parts, others = [], 0
    for layer_name, name, auxiliary, saved in entries:
        label = f"{layer_name!r}" if name == "weight" else f"'{layer_name}.{name}'"
        module = find(layer_name, name)
        own = None if module is None else module._parameters.get(name)
        if module is None or own is None:
            known = next((each for each in modules if each.endswith(layer_name.rpartition(".")[2])), None)
            raise PathwayError(
                f"{path}: the model has no layer {label} with a parameter {name!r}"
                + (f", but {known!r}" if known else "")
                + "; load into the model that it was saved of, or into the part of it whose names begin alike"
            )
        target = Matrix(layer_name, module, name)
        if saved.rows_are_inputs not in (None, target.rows_are_inputs):
            raise PathwayError(
                f"{path}: the pathway {auxiliary!r} of {label} is transposed, as it was saved of a layer of "
                f"another kind than {type(module).__name__}"
            )
        if saved.matrix.shape != own.shape:
            raise PathwayError(
                f"{path}: {label} has a weight of shape {tuple(own.shape)}, the pathway {auxiliary!r} one of "
                f"shape {tuple(saved.matrix.shape)}"
            )
        others += saved.of is not None and _are_others(_fingerprint(own), saved.of)
        parts.append(
            Part(
                target,
                label,
                auxiliary,
                saved.matrix,
                _scale(saved, own.dtype),
                saved.scale_trainable,
                saved.matrix_trainable,
            )
        )
    found = [module for name in blocks if (module := find(name)) is not None]
    install(parts, found if len(found) == len(blocks) else [model], [model], untie=untie)
    if others:
        warnings.warn(
            f"{path} was saved beside other weights W in {others} of {len(parts)} matrices: it holds A and λ "
            "alone; load the target's own state too, or freeze W while you train pathways to share",
            stacklevel=2,
        )
    return model


@dataclass(frozen=True)
class _Saved:
    """What a file says of one auxiliary's matrix for one parameter."""

    matrix: Tensor
    scale: Tensor
    scale_trainable: bool
    matrix_trainable: bool = True
    of: tuple[str, int] | None = None
    rows_are_inputs: bool | None = None

    def __post_init__(self) -> None:
        """Check that the scale belongs to the matrix, and the form of the fingerprint."""
        if self.scale.ndim != 1 or not len(self.scale) or self.matrix.shape[0] % len(self.scale):
            raise ValueError("the scale does not fit the matrix")
        if self.of is not None and [type(each) for each in self.of] != [str, int]:
            raise ValueError("the fingerprint is none")


def _scale(saved: _Saved, dtype: torch.dtype) -> Tensor:
    """Return λ in the dtype of W, or in its own if that is wider than those of the saved A and of W."""
    own = saved.scale.dtype
    is_kept = own.is_floating_point and own.itemsize > max(saved.matrix.dtype.itemsize, dtype.itemsize)
    return saved.scale if is_kept else saved.scale.to(dtype)


def _entries(content: Any) -> Iterator[tuple[str, str, str, _Saved]]:
    """Yield the layer, the parameter, the auxiliary and what is saved; any error is the file's."""
    if content["format"] != FORMAT:
        raise ValueError("another format")
    for layer_name, parameters in content["layers"].items():
        for name, pathways in parameters.items():
            for auxiliary, saved in pathways.items():
                yield layer_name, name, auxiliary, _Saved(**saved)


def _unwrapped(name: str) -> str:
    """Return a module's name without what DistributedDataParallel, torch.compile and peft add to it."""
    parts = without_wrappers(name).split(".")
    parts = parts[2:] if parts[:2] == ["base_model", "model"] else parts
    return ".".join(parts[1:] if parts[:1] == ["module"] else parts)


def _fingerprint(weight: Tensor) -> tuple[str, int] | None:
    """Return a number that other values of W hardly share, with W's dtype; None on the meta device."""
    if weight.is_meta:
        return None
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = whole(weight.detach()).contiguous().view(integers[weight.dtype.itemsize]).flatten().to(torch.int64)
    place = torch.arange(1, len(bits) + 1, device=bits.device)
    return str(weight.dtype), int((bits * place).sum())  # modulo 2^64


def _are_others(own: tuple[str, int] | None, saved: tuple[str, int]) -> bool:
    """Return whether two fingerprints are of other weights; in other dtypes that cannot be said."""
    return own is not None and own[0] == saved[0] and own != tuple(saved)


def _copy(value: Tensor) -> Tensor:
    return whole(value.detach()).cpu().clone()
