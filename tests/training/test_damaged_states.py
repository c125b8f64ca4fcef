"""Damage anywhere in a checkpoint or in weights is detected; what is read is what was written."""

import errno
import os
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from m2pt.errors import DamagedError, InputError
from m2pt.formats.weight_files import load_metadata
from m2pt.formats.weights import load_weights, save_weights
from m2pt.run_files import RESUME
from m2pt.training import checkpoint
from m2pt.training.run_directory import prepare_directory

TENSORS = {f"blocks.{i}.weight": torch.arange(i, i + 64.0).reshape(8, 8) for i in range(4)} | {
    "norm.steps": torch.tensor(3)
}
STATE = {
    "identity": "a" * 8,
    "step": 3,
    "effective_batch": 8,
    "model": TENSORS,
    "optimizer": {"state": {0: {"exp_avg": torch.rand(8, 8)}}, "param_groups": [{"lr": 0.1}]},
}
METADATA = {"spec": '{"task": "é"}', "seed": "0"}

Flat = list[tuple[str, str]]


def flat(value: object, path: str = "") -> Flat:
    """Return every key and leaf, tensors with type, shape and bytes: equal only if nothing differs."""
    if isinstance(value, dict):
        return [leaf for key, each in value.items() for leaf in flat(each, f"{path}.{key!r}")]
    if isinstance(value, list | tuple):
        return [leaf for key, each in enumerate(value) for leaf in flat(each, f"{path}[{key}]")]
    if isinstance(value, Tensor):
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes().hex()
        return [(path, f"{value.dtype} {tuple(value.shape)} {content}")]
    return [(path, repr(value))]


def mutations(content: bytes, number: int) -> Iterator[bytes]:
    """Yield `content` with bits flipped; blocks zeroed, cut, doubled, replaced; its end cut or extended."""
    draw = random.Random(0)
    size = len(content)
    for at in [*range(0, size, max(1, size // number))]:  # spread over all regions
        changed = bytearray(content)
        changed[at] ^= 1 << draw.randrange(8)
        yield bytes(changed)
    for _ in range(number // 4):
        at, length = draw.randrange(size), draw.choice((1, 4, 8, 64, 512))
        block = content[at : at + length]
        other = draw.randrange(size)
        yield content[:at] + b"\0" * len(block) + content[at + len(block) :]
        yield content[:at] + content[at + len(block) :]
        yield content[:at] + block + content[at:]
        yield content[:at] + content[other : other + length] + content[at + len(block) :]
        yield content[:at] + draw.randbytes(len(block)) + content[at + len(block) :]
        yield content[:at]
    for end in (b"\0", b"\n", b"garbage", b"\0" * 4096, content, content[-22:]):
        yield content + end


def survivors(path: Path, read: Callable[[], object], number: int) -> tuple[int, int]:
    """Return the number of mutations of `path`, and of those that were read with other content."""
    original, content = flat(read()), path.read_bytes()
    tried = accepted = 0
    for damaged in mutations(content, number):
        if damaged == content:
            continue
        tried += 1
        path.write_bytes(damaged)
        try:
            accepted += flat(read()) != original
        except InputError as error:
            assert str(path) in str(error)
    return tried, accepted


@pytest.mark.parametrize("lazy", [False, True])
def test_no_damage_to_a_state_is_read(tmp_path: Path, lazy: bool) -> None:
    path = tmp_path / "resume.pt"
    checkpoint.save(path, STATE)
    tried, accepted = survivors(path, lambda: checkpoint.load(path, lazy=lazy), 400)
    assert tried > 900 and accepted == 0


def test_no_damage_to_our_weights_is_read(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_weights(path, TENSORS, METADATA)
    tried, accepted = survivors(path, lambda: list(load_weights(path)), 400)
    assert tried > 900 and accepted == 0


def test_no_damage_to_metadata_is_read_without_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_weights(path, TENSORS, METADATA)
    tried, accepted = survivors(path, lambda: load_metadata(path), 200)
    assert tried > 450 and accepted == 0


def test_no_damage_to_an_official_checkpoint_is_read(tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    torch.save({"model": TENSORS, "epoch": 3}, path)
    tried, accepted = survivors(path, lambda: list(load_weights(path)), 400)
    assert tried > 900 and accepted == 0


def test_a_record_marked_as_a_folder_is_damage(tmp_path: Path) -> None:
    """torch reads nothing for it, and would leave the tensor as memory happened to be."""
    path = tmp_path / "official.pth"
    torch.save(TENSORS, path)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/4"))
    content[entry + 38] |= 0x10  # external attributes: the folder of MS-DOS
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"official\.pth is damaged.*folder"):
        load_weights(path)


def test_weights_without_checksums_can_be_read(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    torch.save(TENSORS, tmp_path / "unsummed.pt")
    torch.serialization.set_crc32_options(True)
    save_file(TENSORS, tmp_path / "foreign.safetensors")
    for path in tmp_path.iterdir():
        assert sorted(flat(load_weights(path)[0])) == sorted(flat(TENSORS))


def test_swapped_tensors_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_weights(path, TENSORS, METADATA)
    content = path.read_bytes()
    first, second = (TENSORS[f"blocks.{i}.weight"].numpy().tobytes() for i in (0, 2))
    swapped = content.replace(first, b"*").replace(second, first).replace(b"*", second)
    renamed = content.replace(b"blocks.0", b"blocks.9")
    for damaged in (swapped, renamed):
        assert len(damaged) == len(content) and damaged != content
        path.write_bytes(damaged)
        assert load_file(path)  # safetensors itself does not notice
        with pytest.raises(DamagedError, match=r"encoder\.safetensors is damaged.*recreate it"):
            load_weights(path)


def test_weights_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_file(TENSORS, path, {"m2pt": '{"seed": "0"}'})
    with pytest.raises(DamagedError, match=r"no checksum, or was written by an earlier version.*recreate it"):
        load_weights(path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_compressed_container_is_refused_without_reading_it(tmp_path: Path, kind: int) -> None:
    torch.save({"model": {"w": torch.zeros(1_000_000)}}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", kind) as bomb,
    ):
        for record in plain.infolist():
            bomb.writestr(record.filename, plain.read(record.filename))
    assert (tmp_path / "bomb.pth").stat().st_size < 50_000
    with pytest.raises(InputError, match=r"bomb\.pth is refused: its records are compressed"):
        load_weights(tmp_path / "bomb.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_pipe_is_refused_without_waiting(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is a pipe or device"):
        load_weights(tmp_path / name)


def test_a_tensor_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    torch.save({"w": torch.zeros(100, 100)}, path, _use_new_zipfile_serialization=False)
    size = struct.pack("<H", 10_000)
    content = path.read_bytes()
    assert b"M" + size in content
    path.write_bytes(content.replace(b"M" + size, b"\x8a\x06" + (10**13).to_bytes(6, "little")))
    with pytest.raises(InputError, match=r"large\.pth is damaged"):
        load_weights(path)


def test_a_passing_read_error_does_not_cost_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / RESUME, {"identity": "a", "step": 3})

    def fails(file: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "check_trailer", fails)
        with pytest.raises(InputError, match="cannot be read"):
            prepare_directory(tmp_path, "a")
    assert prepare_directory(tmp_path, "a") == []
    assert checkpoint.load(tmp_path / RESUME, "a")["step"] == 3
