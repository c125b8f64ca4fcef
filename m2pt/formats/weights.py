"""Weights on disk: our own safetensors files, and official `.pth` files, read without executing code."""

import argparse
import codecs
import re
import zipfile
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from m2pt.atomic import replacing
from m2pt.errors import DamagedError, InputError
from m2pt.formats.checksummed import CHUNK
from m2pt.formats.documents import open_binary
from m2pt.formats.weight_files import (
    add_checksum,
    check_checksum,
    metadata_entry,
    stored_metadata,
)

# Keys of the weights in published checkpoints: MAE, AudioMAE, VideoMAE; DeepSpeed; timm; Point-MAE; its part
# segmentation; averages, if there is nothing else. A file with none of them must be the state dict itself.
_AVERAGES = ("model_ema", "state_dict_ema", "ema")
_CONTAINERS = ("model", "module", "state_dict", "base_model", "model_state_dict", *_AVERAGES)

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Endings of files of torch.save: of the official code bases, transformers, Lightning and timm (.pth.tar)."""

_IN_PLACE = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file: fetch that with git lfs pull",
    b"<!doctype html": "a web page, not the file: fetch that by its download link",
    b"<html": "a web page, not the file: fetch that by its download link",
    b"<?xml": "a server's answer, not the file: fetch that by its download link",
}
"""What a file begins with that a download has left in place of weights."""

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.")
"""What transformers appends to the names of the files that it splits a model into."""

_START_BYTES = 200
"""How much of a file is read to see that."""

_FOLDER = 0x10
"""Attribute of a ZIP record. torch reads nothing for such a record and leaves its tensor uninitialized."""

_NUMBERS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Data types of weights. Integers and float8 are meaningful only together with a scale."""

# Objects in published checkpoints other than tensors: training arguments, and scores as NumPy scalars, which
# pickle as scalar(dtype, bytes), under the module's old name if written by NumPy 1. They execute no code.
_SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a state dict as safetensors with a checksum, atomically. Equal arguments give equal bytes.

    Raises:
        InputError: the folder is not writable or the disk is full; an existing file at `path` is kept.
    """
    tensors = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    try:
        with replacing(path) as temporary, ThreadPoolExecutor(1) as executor:
            sums = executor.submit(_sums, tensors)  # in parallel with writing
            # save_file creates a file that only its owner can read; give it the mode of any other new file.
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(tensors, temporary, metadata_entry(metadata))
            temporary.chmod(mode)
            add_checksum(temporary, sums.result())
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"cannot write {path}: {reason}; the folder must be writable and have free space"
        ) from error


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors, with copies of those that share memory with an earlier one."""
    storages: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if place in storages else tensor
        storages.add(place)
    return separate


def _sums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the CRC-32 of the bytes of contiguous tensors."""
    flat = {name: tensor.reshape(-1).view(torch.uint8) for name, tensor in tensors.items()}
    return {name: zlib.crc32(content.numpy().data) for name, content in flat.items()}


class Checkpoint(NamedTuple):
    """Weights of a file, its metadata, the entry that they are in, and entries with others, not taken."""

    state: dict[str, Tensor]
    metadata: dict[str, str]
    taken: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load the weights of a file and its metadata; see `load_checkpoint`."""
    loaded = load_checkpoint(path)
    return loaded.state, loaded.metadata


def load_checkpoint(path: Path) -> Checkpoint:
    """Load the weights of a `.safetensors` file or of a file of torch.save on the CPU, and its metadata.

    A file of torch.save holds a state dict under `model`, `module`, `state_dict`, `base_model` or
    `model_state_dict`; if there is none of these, under `model_ema`, `state_dict_ema` or `ema`; or it is one
    itself. What is there may again have one of these. Such a file has no metadata. Checksums are verified if
    there are any: one in our safetensors files, one for each tensor in files of torch.save.

    Raises:
        DamagedError: the file is truncated or damaged.
        InputError: the file is missing, unreadable or without weights, or would execute code when loaded (the
            code is not executed).
    """
    readers = {".safetensors": _read_safetensors, **dict.fromkeys(_PICKLES, _read_pickle)}
    if path.suffix not in readers:
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the file of the weights in it")
        raise InputError(f"{path} is not a weights file: its name must end in {', '.join(readers)}")
    if (shard := _SHARD.search(path.name)) and int(shard[1]) > 1:
        raise InputError(
            f"{path} is one of the {int(shard[1])} files of a model: load that with transformers and write "
            "one file with save_pretrained(FOLDER, max_shard_size='1TB')"
        )
    with open_binary(path) as file:  # gives a clear error if the file cannot be opened
        _check_start(file.read(_START_BYTES), path)
    return readers[path.suffix](path)


def _check_start(start: bytes, path: Path) -> None:
    """Refuse what downloads leave in place of a file."""
    for begin, what in _IN_PLACE.items():
        if start.removeprefix(codecs.BOM_UTF8).lstrip().lower().startswith(begin):
            raise InputError(f"{path} is {what}")


def check_tensor(name: str, tensor: Tensor, source: str, *, number: bool = True) -> None:
    """Check that a tensor of a file can serve as weights: dense, in memory, real and finite.

    Args:
        name: its key in the file.
        tensor: the tensor as loaded.
        source: the file's name, for the message.
        number: True if it must be floating-point, False for integers such as the step counts of batch norms.

    Raises:
        InputError: the tensor is of another kind.
    """
    kinds = (
        ("sparse", tensor.layout is not torch.strided),
        ("a nested tensor", tensor.is_nested),
        ("quantized", tensor.is_quantized),
        ("without content (on the meta device)", tensor.device.type != "cpu"),
    )
    fault = next((word for word, holds in kinds if holds), None)
    if fault is None and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        fault = f"of shape {tuple(tensor.shape)}, but has less content than that"
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)
    if fault is None and not (tensor.dtype in _NUMBERS if number else whole):
        fault = f"{str(tensor.dtype).removeprefix('torch.')}, not a {'real' if number else 'whole'} number"
    if fault is None and number and not bool(torch.isfinite(tensor.detach().float()).all()):
        fault = "not finite: it holds NaN, infinity or numbers beyond float32"
    if fault is not None:
        raise InputError(f"{source}: {name} is {fault}; use weights saved as plain float tensors")


def _read_safetensors(path: Path) -> Checkpoint:
    check_checksum(path)
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            metadata = stored_metadata(file, path)
    except InputError:
        raise
    except Exception as error:  # SafetensorError, or e.g. KeyError for a dtype that torch does not have
        reason = str(error) if len(str(error)) > 5 else repr(error)  # a KeyError says no more than its key
        raise DamagedError(f"{path} is damaged or truncated: {reason}; fetch or recreate it") from error
    return Checkpoint(state, metadata)


def _check_records(path: Path) -> None:
    """Verify the checksums of the records in a ZIP container, which torch writes but does not verify.

    Raises:
        DamagedError: a record is damaged.
        InputError: records are compressed or overlap, which torch never writes and may expand to any size.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":  # the same test as torch's
                return  # from before torch 1.6, without checksums
        with zipfile.ZipFile(path) as container:
            records = container.infolist()
            stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
            if not stored or sum(record.file_size for record in records) > path.stat().st_size:
                raise InputError(
                    f"{path} is refused: its records are compressed or overlap, as torch.save never writes "
                    "them; save it again with torch.save"
                )
            if any(record.is_dir() or record.external_attr & _FOLDER for record in records):
                raise ValueError("a record is marked as a folder")
            if not any(record.CRC for record in records):
                return  # torch.serialization.set_crc32_options(False)
            for record in records:
                with container.open(record) as content:
                    while content.read(CHUNK):
                        pass
    except InputError:
        raise
    # of a damaged file: BadZipFile, and what zipfile does not document: struct.error, EOFError, …
    except Exception as error:
        raise DamagedError(f"{path} is damaged or truncated: {error}; fetch or recreate it") from error


def _read_pickle(path: Path) -> Checkpoint:
    _check_records(path)
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way: EOFError, KeyError, RuntimeError, …
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path} is refused: loading it would call {refused[1]}, but weights are only tensors; "
                "use a file saved from a state_dict(), or safetensors"
            ) from error
        reason = str(error).partition(". ")[0] or type(error).__name__
        raise DamagedError(f"{path} is damaged or truncated: {reason}; fetch or recreate it") from error
    state, taken, others = _taken(content)
    entries = list(state.items()) if isinstance(state, Mapping) else []
    odd = [
        (key, value) for key, value in entries if not isinstance(key, str) or not isinstance(value, Tensor)
    ]
    if not isinstance(state, Mapping) or not entries or len(odd) == len(entries):
        inner = [key for key, value in entries if isinstance(value, Mapping) and _has_tensor(value)]
        fix = f"; save {inner[0]!r} by itself with torch.save" if inner else ""
        raise InputError(
            f"{path} holds no weights: it is a {type(state).__name__} with the keys "
            f"{[key for key, _ in entries[:9]]}; "
            f"tensors must be at its top level or under {', '.join(map(repr, _CONTAINERS))}{fix}"
        )
    if odd:
        key, value = odd[0]
        raise InputError(
            f"{path}: {key!r} among its weights is of the type {type(value).__name__}; remove it: weights "
            "are tensors with names"
        )
    return Checkpoint(dict(state), {}, taken, others)


def _has_tensor(entry: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in entry.values())


def _taken(content: object) -> tuple[object, tuple[str, ...], tuple[str, ...]]:
    """Return what is in the innermost of the containers, their names, and those of others beside them."""
    taken: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    while isinstance(content, Mapping):
        found = [key for key in _CONTAINERS if isinstance(content.get(key), Mapping)]
        if not found:
            break
        content, taken, others = content[found[0]], (*taken, found[0]), (*others, *found[1:])
    return content, taken, others
