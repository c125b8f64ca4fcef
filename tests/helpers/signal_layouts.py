"""A small dataset of each layout of signals, and what a perfect model scores on it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import soundfile
import torch
from classification_tasks import classification
from torch.nn import functional

from m2pt.config.architecture import AudioInput
from m2pt.datasets.augmentations import (
    PointcloudAugmentation,
    ShapeAugmentation,
    SpectrogramAugmentation,
    TextAugmentation,
)
from m2pt.tasks.multilabel_classification import MultilabelClassification
from m2pt.tasks.part_segmentation import PartSegmentation
from m2pt.tasks.point_segmentation import PointSegmentation

RATE = 16000
MUG, CHAIR = "03797390", "03001627"
draw = np.random.default_rng(0)


def tone(samples: int = 4000) -> np.ndarray:
    return (0.3 * np.sin(np.arange(samples) * 0.1)).astype(np.float32)


def build_audioset(root: Path) -> None:
    (root / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/a,"One, two"\n1,/m/b,Two\n')
    for split, relative in (("train", "train.json"), ("eval", "eval.json")):
        (root / split).mkdir()
        for number in range(2):
            soundfile.write(root / f"{split}/{number}.wav", tone(), RATE, subtype="PCM_16")
        clips = [
            {"wav": f"{split}/{n}.wav", "labels": label} for n, label in enumerate(("/m/a,/m/b", "/m/b"))
        ]
        (root / relative).write_text(json.dumps({"data": clips}))


def cloud(points: int = 40) -> np.ndarray:
    return draw.normal(0, 0.3, (points, 3)).astype(np.float32)


def build_shapenet55(root: Path) -> None:
    lists = root / "ShapeNet55-34/ShapeNet-55"
    lists.mkdir(parents=True)
    (root / "ShapeNet55-34/shapenet_pc").mkdir()
    for split in ("train", "test"):
        names = [f"{synset}-{split}.npy" for synset in (MUG, CHAIR)]
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            np.save(root / "ShapeNet55-34/shapenet_pc" / name, cloud())


def shape_text(first_part: int, points: int = 30) -> str:
    rows = [(*point, 0, 0, 1, first_part + number % 2) for number, point in enumerate(cloud(points))]
    return "".join(" ".join(f"{value:.6g}" for value in row) + "\n" for row in rows)


def build_shapenetpart(root: Path) -> None:
    (root / "synsetoffset2category.txt").write_text(f"Chair\t{CHAIR}\nMug\t{MUG}\n")
    (root / "train_test_split").mkdir()
    for synset, part in ((CHAIR, 12), (MUG, 36)):
        (root / synset).mkdir()
        for split in ("train", "val", "test"):
            (root / synset / f"{split}.txt").write_text(shape_text(part))
    for split in ("train", "val", "test"):
        entries = [f"shape_data/{synset}/{split}" for synset in (CHAIR, MUG)]
        (root / f"train_test_split/shuffled_{split}_file_list.json").write_text(json.dumps(entries))


def partnet_arrays(shapes: int = 2, points: int = 30) -> dict[str, Any]:
    return {
        "data": draw.normal(0, 0.3, (shapes, points, 3)).astype(np.float32),
        "data_num": np.full(shapes, points),
        "label_seg": np.arange(shapes * points, dtype=np.uint8).reshape(shapes, points) % 3,
    }


def write_h5(path: Path, **arrays: Any) -> None:
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value


def build_partnet(root: Path) -> None:
    folder = root / "sem_seg_h5/Bag-1"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        write_h5(folder / f"{split}-00.h5", **partnet_arrays())
        (folder / f"{split}_files.txt").write_text(f"./{split}-00.h5\n")


def build_text(root: Path) -> None:
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("Some words to read, 50 bytes or so, of plain text.\n" * 3)


def audioset_scores(items: list[Any]) -> dict[str, float]:
    labels = torch.stack([item[1] for item in items])
    return MultilabelClassification(2).summarize([(labels, labels)], None)


def shapenet55_scores(items: list[Any]) -> dict[str, float]:
    clouds, labels = torch.stack([item[0] for item in items]), torch.tensor([item[1] for item in items])
    task = classification(2)
    return task.summarize([task.measure(lambda _: functional.one_hot(labels, 2), (clouds, labels))], None)


def shapenetpart_scores(items: list[Any]) -> dict[str, float]:
    labels = torch.stack([item[2] for item in items])
    task = PartSegmentation()
    return task.summarize([task.compare(functional.one_hot(labels, 50).float(), labels)], None)


def partnet_scores(items: list[Any]) -> dict[str, float]:
    labels = torch.stack([item[1] for item in items])
    task = PointSegmentation()
    return task.summarize([task.count(functional.one_hot(labels, 3).float(), labels)], None)


@dataclass(frozen=True)
class Layout:
    build: Callable[[Path], None]
    classes: int
    view: dict[str, Any]
    augmentation: Any
    scores: Callable[[list[Any]], dict[str, float]] | None


ANISOTROPIC = ShapeAugmentation(isotropic=False)
LAYOUTS = {
    "audioset": Layout(
        build_audioset,
        2,
        AudioInput(frames=30, mel_bins=16).model_dump(),
        SpectrogramAugmentation(roll_magnitude=True, mixup=0.5, time_mask=3, frequency_mask=3),
        audioset_scores,
    ),
    "shapenet55": Layout(build_shapenet55, 2, {"points": 20}, PointcloudAugmentation(), shapenet55_scores),
    "shapenetpart": Layout(build_shapenetpart, 50, {"points": 20}, ANISOTROPIC, shapenetpart_scores),
    "partnet": Layout(build_partnet, 3, {"points": 20, "subset": "Bag-1"}, ANISOTROPIC, partnet_scores),
    "text": Layout(build_text, 256, {"length": 20}, TextAugmentation(), None),
}
