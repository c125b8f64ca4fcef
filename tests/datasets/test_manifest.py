"""A dataset's manifest: the same wherever the dataset lies, and of every file that a check accepts."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from m2pt.config.architecture import AudioInput
from m2pt.datasets.layouts import layout_module
from m2pt.datasets.manifest import build_manifest, file_sha256
from m2pt.errors import InputError
from m2pt.ops.datasets import write_manifest


def write_sound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.ones(800), 16000)


def audioset(root: Path, *clips: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/a,One\n")
    for name, listed in (("train.json", clips), ("eval.json", ["eval.wav"])):
        (root / name).write_text(json.dumps({"data": [{"wav": clip, "labels": "/m/a"} for clip in listed]}))
    write_sound(root / "eval.wav")
    return root


def test_a_manifest_is_the_digest_of_relative_names_sizes_and_contents(tmp_path: Path) -> None:
    root = audioset(tmp_path / "here", "sound/a.wav")
    write_sound(root / "sound/a.wav")
    names = ["class_labels_indices.csv", "eval.json", "eval.wav", "sound/a.wav", "train.json"]
    listing = "".join(f"{name}\0{(root / name).stat().st_size}\n" for name in names)
    content = "".join(f"{name}\0{hashlib.sha256((root / name).read_bytes()).hexdigest()}\n" for name in names)
    manifest = build_manifest(root, "audioset", full=True)
    assert manifest["listing_sha256"] == hashlib.sha256(listing.encode()).hexdigest()
    assert manifest["content_sha256"] == hashlib.sha256(content.encode()).hexdigest()
    assert manifest["files"] == 5 and manifest["items"] == {"train": 1, "val": 1}
    shutil.copytree(root, tmp_path / "there")
    assert build_manifest(tmp_path / "there", "audioset", full=True) == manifest


@pytest.mark.parametrize("relative_root", [False, True])
def test_absolute_paths_count_as_relative_inside_the_root_and_as_themselves_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative_root: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    inside, outside = tmp_path / "data/sound/a.wav", tmp_path / "other/b.wav"
    audioset(tmp_path / "data", str(inside), str(outside))
    for path in (inside, outside):
        write_sound(path)
    root = Path("data") if relative_root else tmp_path / "data"
    assert layout_module("audioset").check(root, num_classes=1, full=True) == []
    manifest = build_manifest(root, "audioset", full=True)
    names = sorted(
        ["class_labels_indices.csv", "eval.json", "eval.wav", "train.json", "sound/a.wav", str(outside)]
    )
    listing = "".join(f"{name}\0{(root / name).stat().st_size}\n" for name in names)
    assert manifest["listing_sha256"] == hashlib.sha256(listing.encode()).hexdigest()
    before = manifest["content_sha256"]
    soundfile.write(outside, -0.1 * np.ones(800), 16000)
    assert build_manifest(root, "audioset", full=True)["content_sha256"] != before
    reader = layout_module("audioset").Reader(
        root, "train", num_classes=1, **AudioInput(frames=5, mel_bins=8).model_dump()
    )
    assert all(reader[index][0].isfinite().all() for index in range(2))


def imagenet(root: Path, *, folder: bytes = b"one", file: bytes = b"a.JPEG") -> Path:
    for split in (b"train", b"val"):
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + split + b"/" + folder))
        path.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path / os.fsdecode(file), format="JPEG")
    return root


def test_names_that_are_not_utf_8_are_hashed_as_their_bytes(tmp_path: Path) -> None:
    root = imagenet(tmp_path / "set", folder=b"caf\xe9", file=b"\xff.JPEG")
    manifest_path = tmp_path / "manifest.json"
    write_manifest("imagenet", root, manifest_path=manifest_path, full=True)
    manifest = json.loads(manifest_path.read_text())
    size = next(root.rglob("*.JPEG")).stat().st_size
    listing = b"".join(split + b"/caf\xe9/\xff.JPEG\0%d\n" % size for split in (b"train", b"val"))
    assert manifest["listing_sha256"] == hashlib.sha256(listing).hexdigest()
    assert manifest["classes"] == ["caf\\xe9"]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda path: path.symlink_to("nowhere"), "No such file"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (lambda path: path.mkdir(), "is a folder, not a file"),
        (os.mkfifo, "is a pipe or device, not a file"),
        (lambda path: None, "No such file"),
    ],
)
def test_what_is_not_a_file_is_named(tmp_path: Path, put, message: str, full: bool) -> None:
    root = audioset(tmp_path, "a.wav")
    put(root / "a.wav")
    with pytest.raises(InputError, match=rf"a\.wav.*{message}"):
        build_manifest(root, "audioset", full=full)
    with pytest.raises(InputError, match=rf"a\.wav.*{message}"):
        file_sha256(root / "a.wav")
