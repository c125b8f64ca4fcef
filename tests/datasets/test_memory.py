"""Memory of the readers: ten times the samples take little more, and reading them keeps nothing."""

import gc
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numbered_videos import write_video
from PIL import Image
from signal_layouts import CHAIR, RATE, shape_text, tone

from m2pt.config.architecture import AudioInput
from m2pt.datasets.layouts import reader


def linked(first: Path, names: list[str]) -> None:
    """Give a file more names in its folder."""
    for name in names:
        (first.parent / name).hardlink_to(first)


def imagenet(root: Path, names: list[str]) -> None:
    folder = root / "train" / "n01"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(root / "picture.jpg")
    for name in names:
        (folder / f"n01_{name}.JPEG").hardlink_to(root / "picture.jpg")


def audioset(root: Path, names: list[str]) -> None:
    (root / "clips").mkdir(parents=True)
    (root / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/a,One\n")
    soundfile.write(root / "clips/first.wav", tone(800), RATE, subtype="PCM_16")
    linked(root / "clips/first.wav", [f"{name}.wav" for name in names])
    clips = [{"wav": f"clips/{name}.wav", "labels": "/m/a"} for name in names]
    (root / "train.json").write_text(json.dumps({"data": clips}))


def kinetics(root: Path, names: list[str]) -> None:
    (root / "clips").mkdir(parents=True)
    write_video(root / "clips/first.mp4")
    linked(root / "clips/first.mp4", [f"{name}.mp4" for name in names])
    (root / "train.csv").write_text("".join(f"clips/{name}.mp4 0\n" for name in names))


def shapenet55(root: Path, names: list[str]) -> None:
    (root / "ShapeNet-55").mkdir(parents=True)
    (root / "shapenet_pc").mkdir()
    np.save(root / "shapenet_pc/first.npy", np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))
    files = [f"{CHAIR}-{name}.npy" for name in names]
    linked(root / "shapenet_pc/first.npy", files)
    for split in ("train", "test"):
        (root / f"ShapeNet-55/{split}.txt").write_text("".join(f"{file}\n" for file in files))


def shapenetpart(root: Path, names: list[str]) -> None:
    (root / "train_test_split").mkdir(parents=True)
    (root / CHAIR).mkdir()
    (root / "synsetoffset2category.txt").write_text(f"Chair\t{CHAIR}\n")
    (root / CHAIR / "first.txt").write_text(shape_text(12, points=20))
    linked(root / CHAIR / "first.txt", [f"{name}.txt" for name in names])
    for split, entries in (("train", names[1:]), ("val", names[:1])):
        shapes = [f"shape_data/{CHAIR}/{name}" for name in entries]
        (root / f"train_test_split/shuffled_{split}_file_list.json").write_text(json.dumps(shapes))


LAYOUTS: dict[str, tuple[Callable[[Path, list[str]], None], int, dict[str, Any]]] = {
    "imagenet": (imagenet, 1, {"image_size": 16}),
    "audioset": (audioset, 1, AudioInput(frames=16, mel_bins=16).model_dump()),
    "kinetics": (kinetics, 1, {"frames": 2, "stride": 1, "image_size": 16}),
    "shapenet55": (shapenet55, 1, {"points": 8}),
    "shapenetpart": (shapenetpart, 50, {"points": 8}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ten_times_the_samples_take_little_more_memory(layout: str, tmp_path: Path) -> None:
    build, num_classes, values = LAYOUTS[layout]
    taken = {}
    for samples in (30, 300, 3000):  # the first also imports
        root = tmp_path / str(samples)
        build(root, [f"{number:05}" for number in range(samples)])
        tracemalloc.start()
        samples_of = reader(layout)(root, "train", num_classes=num_classes, seed=0, **values)
        gc.collect()
        opened, _ = tracemalloc.get_traced_memory()
        for index in range(0, samples, samples // 30):
            samples_of[0, index]
        read, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(samples_of) == samples
        taken[samples] = opened, read - opened
    assert taken[3000][0] - taken[300][0] < 100 * 2700, "bytes for the name of a sample"
    assert taken[3000][1] < 2**16, "reading keeps nothing"
