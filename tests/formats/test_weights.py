"""Weights on disk: round trips, and errors that name every broken or dangerous file."""

import argparse
import errno
import hashlib
import io
import os
import resource
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from m2pt.errors import InputError
from m2pt.formats.weight_files import file_digest
from m2pt.formats.weights import load_checkpoint, load_weights, save_weights

STATE = {
    "blocks.0.weight": torch.arange(600.0).reshape(20, 30),
    "step": torch.tensor(3),
    "half": torch.ones(2).bfloat16(),
}
METADATA = {"modality": "audio", "epoch": "300", "dataset": "a=b", "note": "é"}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_saved_weights_are_loaded_and_safetensors_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "encoder.safetensors"
    save_weights(path, STATE | {"transposed": STATE["blocks.0.weight"].T}, METADATA)
    state, metadata = load_weights(path)
    assert metadata == METADATA
    assert same(state, STATE | {"transposed": STATE["blocks.0.weight"].T})
    assert same(load_file(path), state)
    assert list(path.parent.iterdir()) == [path]


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    many = {f"key{i}": str(i) for i in range(9)}
    for i in range(4):
        save_weights(tmp_path / f"{i}.safetensors", dict(reversed(STATE.items())) if i % 2 else STATE, many)
    digests = {file_digest(tmp_path / f"{i}.safetensors") for i in range(4)}
    assert digests == {hashlib.sha256((tmp_path / "0.safetensors").read_bytes()).hexdigest()}


def test_the_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_weights(tmp_path / "a.safetensors", STATE, {})
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "other").stat().st_mode
    )


def test_foreign_safetensors_keep_their_metadata(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "timm.safetensors", {"format": "pt"})
    save_file(STATE, tmp_path / "bare.safetensors")
    assert load_weights(tmp_path / "timm.safetensors")[1] == {"format": "pt"}
    assert load_weights(tmp_path / "bare.safetensors")[1] == {}


@pytest.mark.parametrize(
    "path", ["model.state_dict", "state_dict.model", "model_ema.module", "module.module.ema"]
)
def test_containers_may_be_in_each_other(tmp_path: Path, path: str) -> None:
    content: dict[str, Any] = dict(STATE)
    for key in reversed(path.split(".")):
        content = {key: content, "epoch": 3}
    torch.save(content | {"state_dict_ema": {}}, tmp_path / "nested.pth")
    loaded = load_checkpoint(tmp_path / "nested.pth")
    assert same(loaded.state, STATE) and loaded.others == ("state_dict_ema",)


def test_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path} is a folder: give the file of the weights in it"):
        load_weights(tmp_path)


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    both = torch.randn(2, 3)
    state = {"a": both, "b": both, "c": both[1], "d": both.T, "e": both[:0]}
    save_weights(tmp_path / "tied.safetensors", state, {})
    assert same(load_weights(tmp_path / "tied.safetensors")[0], state)


@pytest.mark.parametrize(
    "container", ["model", "module", "state_dict", "base_model", "model_state_dict", None]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_official_checkpoints_with_arguments_and_numpy_scalars(
    tmp_path: Path, container: str | None, zipped: bool
) -> None:
    beside = {"args": argparse.Namespace(lr=1e-3, data=None), "epoch": 7, "optimizer": {"state": {}},
              "best": np.float64(85.1), "seen": np.int64(4)}  # fmt: skip
    content = STATE if container is None else {"epoch": 1, container: STATE, **beside}
    torch.save(content, tmp_path / "official.pth", _use_new_zipfile_serialization=zipped)
    state, metadata = load_weights(tmp_path / "official.pth")
    assert same(state, STATE) and metadata == {}


def test_numpy_1_scalars(tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save({"model": STATE, "best": np.float32(1.5)}, file)
    with zipfile.ZipFile(file) as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert same(load_weights(tmp_path / "old.pt")[0], STATE)


class Executes:
    """Unpickling this creates the folder `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_execute_code_is_rejected(tmp_path: Path, zipped: bool) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "executed"
    torch.save({"model": STATE, "args": Executes(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"evil\.pth is refused: loading it would call \w+\.mkdir"):
        load_weights(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # our own file, to show that it would execute code
    assert trace.exists()


def test_a_pickled_module_is_rejected(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(InputError, match=r"would call torch\.nn\.modules\.linear\.Linear.*state_dict"):
        load_weights(tmp_path / "module.pth")


@pytest.mark.parametrize("kind", ["safetensors", "pth", "legacy.pth"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / f"cut.{kind}"
    if kind == "safetensors":
        save_weights(path, STATE, METADATA)
    else:
        torch.save({"model": STATE}, path, _use_new_zipfile_serialization=kind == "pth")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=rf"cut\.{kind} is damaged or truncated: \S.*; fetch or recreate it"):
        load_weights(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("page.pth", b"<html>404 Not Found</html>", r"page\.pth is a web page, not the file"),
        ("page.safetensors", b"\n<!DOCTYPE html>\n<html>", r"page\.safetensors is a web page, not the file"),
        (
            "a.pth",
            b"version https://git-lfs.github.com/spec/v1\noid",
            r"a\.pth is a pointer of Git LFS.*lfs pull",
        ),
        ("bom.pth", b"\xef\xbb\xbf<HTML>", r"bom\.pth is a web page"),
        ("s3.pth", b"<?xml version='1.0'?><Error>", r"s3\.pth is a server's answer, not the file"),
        ("text.pth", b"404 Not Found", r"text\.pth is damaged or truncated"),
        (
            "weights.npz",
            b"",
            r"weights\.npz is not a weights file: its name must end in \.safetensors, \.pth, \.pt",
        ),
    ],
)
def test_files_of_another_kind(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_weights(tmp_path / name)


@pytest.mark.parametrize(
    "content", [{"optimizer": {"lr": 1.0}, "epoch": 3}, [1, 2], {"model": {"w": 1.0}}, {}]
)
def test_files_without_weights(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "none.pth")
    with pytest.raises(InputError, match=r"none\.pth holds no weights: it is a .*'state_dict'"):
        load_weights(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("beside", "taken"),
    [
        ({"model": STATE, "ema": 0.9999}, "model"),
        ({"model": STATE, "model_ema": None}, "model"),
        ({"model": "vit_base", "state_dict": STATE}, "state_dict"),
        ({"model": None, "state_dict": STATE}, "state_dict"),
        ({"model": {"state_dict": STATE}}, "model.state_dict"),
    ],
)
def test_entries_that_hold_no_weights_are_passed_over(
    tmp_path: Path, beside: dict[str, Any], taken: str
) -> None:
    torch.save(beside, tmp_path / "a.pth")
    loaded = load_checkpoint(tmp_path / "a.pth")
    assert loaded.state.keys() == STATE.keys()
    assert (".".join(loaded.taken), loaded.others) == (taken, ())


def test_an_entry_of_another_name_is_to_be_saved_by_itself(tmp_path: Path) -> None:
    torch.save({"optimizer": {"lr": 1.0}, "net": STATE}, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"net\.pth holds no weights: .*; save 'net' by itself"):
        load_weights(tmp_path / "net.pth")


def test_one_of_several_files_of_a_model_is_refused(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model-00001-of-00001.safetensors")
    assert load_weights(tmp_path / "model-00001-of-00001.safetensors")[0].keys() == STATE.keys()
    save_file(STATE, tmp_path / "model-00002-of-00003.safetensors")
    with pytest.raises(InputError, match="is one of the 3 files of a model: load that with transformers"):
        load_weights(tmp_path / "model-00002-of-00003.safetensors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**STATE, "epoch": 3}, "'epoch' among its weights is of the type int; remove it"),
        ({"model": {**STATE, "x": None}}, "'x' among its weights is of the type NoneType; remove it"),
        (
            {0: torch.zeros(2), **STATE},
            "0 among its weights is of the type Tensor; remove it: weights",
        ),
        ({"model": {"encoder": STATE, "decoder": STATE}}, "is a dict with the keys ['encoder', 'decoder']"),
    ],
)
def test_what_is_no_weight_is_named(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(InputError) as raised:
        load_weights(tmp_path / "odd.pth")
    assert words in str(raised.value)


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.pth"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: cannot be read \(No such file"):
        load_weights(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: cannot be read \(No such file"):
        file_digest(tmp_path / name)


@contextmanager
def small_disk(bytes_left: int) -> Iterator[None]:
    """Limit the size of files, so that the operating system fails the write as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Become another user, since root may write anywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_full_disk_keeps_the_old_file_and_leaves_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, STATE, METADATA)
    before = path.read_bytes()
    with (
        small_disk(4096),
        pytest.raises(InputError, match=rf"cannot write .*a\.safetensors: .*{errno.EFBIG}.*space"),
    ):
        save_weights(path, {"large": torch.zeros(10000)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    path = folder / "b.safetensors"
    with (
        unprivileged(),
        pytest.raises(InputError, match=r"cannot write .*b\.safetensors: Permission denied"),
    ):
        save_weights(path, STATE, {})
    file = tmp_path / "c.pth"
    torch.save(STATE, file)
    file.chmod(0)
    with unprivileged(), pytest.raises(InputError, match=r"c\.pth: cannot be read \(Permission denied"):
        load_weights(file)
