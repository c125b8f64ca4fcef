"""Datasets of 200 training samples, two of which may be corrupt, in several layouts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from signal_layouts import CHAIR, RATE, shape_text, tone

from m2pt.config.architecture import AudioInput
from m2pt.datasets.augmentations import ImageAugmentation, ShapeAugmentation, SpectrogramAugmentation
from m2pt.datasets.layouts import reader

SAMPLES = 200


def build_imagenet(root: Path) -> None:
    draw = np.random.default_rng(0)
    for split, number in (("train", SAMPLES // 2), ("val", 2)):
        for wnid in ("n01", "n02"):
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for image in range(number):
                pixels = draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{image:03}.JPEG", "JPEG")


def build_audioset(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/a,One\n1,/m/b,Two\n")
    for split, relative, number in (("train", "train.json", SAMPLES), ("eval", "eval.json", 2)):
        (root / split).mkdir()
        for clip in range(number):
            soundfile.write(root / f"{split}/{clip:03}.wav", tone(800 + clip), RATE, subtype="PCM_16")
        labels = ("/m/a", "/m/b")
        clips = [{"wav": f"{split}/{n:03}.wav", "labels": labels[n % 2]} for n in range(number)]
        (root / relative).write_text(json.dumps({"data": clips}))


def build_shapenetpart(root: Path) -> None:
    (root / "train_test_split").mkdir(parents=True)
    (root / CHAIR).mkdir()
    (root / "synsetoffset2category.txt").write_text(f"Chair\t{CHAIR}\n")
    for split, number in (("train", SAMPLES - 1), ("val", 1), ("test", 2)):
        names = [f"{split}{shape:03}" for shape in range(number)]
        for name in names:
            (root / CHAIR / f"{name}.txt").write_text(shape_text(12, points=6))
        entries = [f"shape_data/{CHAIR}/{name}" for name in names]
        (root / f"train_test_split/shuffled_{split}_file_list.json").write_text(json.dumps(entries))


@dataclass(frozen=True)
class Layout:
    """How a layout is written and read, and the file of a sample; `train(7)` is that of training sample 7."""

    build: Callable[[Path], None]
    train: Callable[[int], str]
    evaluated: str
    num_classes: int
    augmentation: Any
    input: dict[str, Any]

    def damage(self, root: Path, *samples: int) -> list[Path]:
        """Cut the files of training samples, and return their paths."""
        return [cut(root / self.train(sample)) for sample in samples]


LAYOUTS = {
    "imagenet": Layout(
        build_imagenet,
        lambda sample: f"train/n0{1 + sample // 100}/{sample % 100:03}.JPEG",
        "val/n01/000.JPEG",
        2,
        ImageAugmentation(scale=(0.5, 1.0), reprob=0.5),
        {"image_size": 8},
    ),
    "audioset": Layout(
        build_audioset,
        lambda sample: f"train/{sample:03}.wav",
        "eval/000.wav",
        2,
        SpectrogramAugmentation(mixup=0.5),
        AudioInput(frames=16, mel_bins=16).model_dump(),
    ),
    "shapenetpart": Layout(
        build_shapenetpart,
        lambda sample: f"{CHAIR}/{'val000' if sample == SAMPLES - 1 else f'train{sample:03}'}.txt",
        f"{CHAIR}/test000.txt",
        50,
        ShapeAugmentation(),
        {"points": 8},
    ),
}


def cut(path: Path) -> Path:
    """Damage a file, and return its path; what is added is no number, where half of the rows would do."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b" x")
    return path


def opened(name: str, root: Path, split: str = "train", *, skip: bool = False, **options: Any) -> Any:
    """Return a reader with its layout's augmentation; `options` replace the reader's own."""
    layout = LAYOUTS[name]
    settings = {"augmentation": layout.augmentation, "seed": 3, **layout.input, **options}
    found = reader(name)(root, split, num_classes=layout.num_classes, **settings)
    found.skip_corrupt = skip
    return found
