"""Weights on disk: safetensors of our own, and the official `.pth` files, read without running any code."""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from m2pt.atomic import replacing
from m2pt.errors import InputError
from m2pt.formats.weight_files import METADATA_KEY, check_readable, stored_metadata

# Where published checkpoints keep the weights: MAE, AudioMAE, VideoMAE; DeepSpeed; timm; Point-MAE; its part
# segmentation. A file with none of them must be the state dict itself.
_CONTAINERS = ("model", "module", "state_dict", "base_model", "model_state_dict")

# What the same files hold beside tensors: training arguments, and scores as NumPy scalars, which pickle as
# scalar(dtype, bytes), under the module's old name if NumPy 1 wrote them. Making any of these runs no code.
_SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a state dict as safetensors, atomically. Equal arguments give equal bytes.

    Raises:
        InputError: the folder cannot be written or the disk is full; an older file at `path` is kept.
    """
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    entry = {METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)}
    try:
        with replacing(path) as temporary:
            # save_file makes a file that only its owner may read; give it the mode of any other new file.
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(tensors, temporary, entry)
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"cannot write {path}: {reason}; the folder must be one that can be written, with space left"
        ) from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the weights in a `.safetensors`, `.pth` or `.pt` file, on the CPU, and its metadata.

    From a `.pth` or `.pt` come the tensors under `model`, `module`, `state_dict`, `base_model` or
    `model_state_dict`, or the whole file if it is a state dict itself; it has no metadata.

    Raises:
        InputError: the file is missing, unreadable, truncated, without weights, or would run code when loaded
            (the code is not run).
    """
    readers = {".safetensors": _read_safetensors, ".pth": _read_pickle, ".pt": _read_pickle}
    if path.suffix not in readers:
        raise InputError(f"{path} is not a weights file: its name must end in {', '.join(readers)}")
    check_readable(path)
    return readers[path.suffix](path)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = stored_metadata(file, path)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or truncated: {error}; fetch or make it again") from error
    return state, metadata


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file fails in any way: EOFError, KeyError, RuntimeError, …
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path} is refused: loading it would call {refused[1]}, where weights are only tensors; "
                "use a file that was saved from a state_dict(), or safetensors"
            ) from error
        reason = str(error).partition(". ")[0] or type(error).__name__
        raise InputError(f"{path} is damaged or truncated: {reason}; fetch or make it again") from error
    keys = list(content) if isinstance(content, Mapping) else []
    state = next((content[key] for key in _CONTAINERS if key in keys), content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(
            f"{path} holds no weights: it is a {type(content).__name__} with the keys {keys[:9]}; "
            f"tensors are looked for at its top or under {', '.join(map(repr, _CONTAINERS))}"
        )
    return dict(state), {}
