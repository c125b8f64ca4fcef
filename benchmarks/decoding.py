"""Images per second of the ImageNet reader on one core, as ratios to timm's own loader in the same run.

    python benchmarks/decoding.py
    python benchmarks/decoding.py --pictures 4 --rounds 1  # shows that all views run

Reads 500 x 375 JPEG files and stacks batches, without workers: timm's `create_dataset` and
`create_transform`, and `m2pt.datasets.imagenet.Reader` with both backends. The pictures are noise with the
1/f spectrum of photographs, stored at about their size in ImageNet. Views are those of the recipes
`pretrain_image` and `imagenet_tune` of the paper's scale, and of evaluation, where the reader has one path.

Every round times all forms, in processor time, and ratios are medians over the rounds, so that a busy machine
disturbs all alike. A ratio has its limit beside it, if there is one, and `under` if it is smaller.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from pathway import median_ratio
from PIL import Image, __version__
from timm.data import create_dataset, create_transform
from torch.utils.data import DataLoader

from m2pt.datasets.augmentations import ImageAugmentation
from m2pt.datasets.imagenet import EVALUATION_CROP, Reader
from m2pt.datasets.images import MEAN, STD
from m2pt.datasets.policies import allow_black

WIDTH, HEIGHT, QUALITY = 500, 375, 90
SIDE, BATCH = 224, 16

VIEWS = {
    "pretraining": ImageAugmentation(scale=(0.2, 1.0)),
    "finetuning": ImageAugmentation(auto_augment="rand-m9-mstd0.5-inc1", reprob=0.25),
    "evaluation": None,
}
LIMITS = {("pretraining", "tensor"): 1.5, ("finetuning", "tensor"): 1.2}
"""Smallest ratios to timm's images per second that are wanted."""


def picture(generator: np.random.Generator) -> Image.Image:
    """Return noise whose amplitude falls with frequency as in photographs, in correlated colors."""
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
    noise = np.fft.rfft2(generator.standard_normal((3, HEIGHT, WIDTH)))
    layers = np.fft.irfft2(noise / np.maximum(frequency, 1 / WIDTH), s=(HEIGHT, WIDTH))
    light, red, blue = (each / each.std() for each in layers)
    pixels = 118 + 50 * light[..., None] + 15 * np.stack([red, 0 * red, blue], axis=-1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_pictures(root: Path, count: int) -> int:
    """Write a dataset in ImageNet's layout, `count` pictures per split; return their mean size in bytes."""
    generator = np.random.default_rng(0)
    sizes = []
    for split in ("train", "val"):
        folder = root / split / "n00000000"
        folder.mkdir(parents=True)
        for number in range(count):
            path = folder / f"{number:04}.JPEG"
            picture(generator).save(path, quality=QUALITY)
            sizes.append(path.stat().st_size)
    return round(statistics.mean(sizes))


def timm_dataset(root: Path, settings: ImageAugmentation | None) -> torch.utils.data.Dataset:
    """Return the images as timm's training script reads them."""
    if settings is None:
        transform = create_transform(
            SIDE, crop_pct=EVALUATION_CROP, interpolation="bicubic", mean=MEAN, std=STD
        )
        return create_dataset("", root / "val", transform=transform)
    transform = create_transform(
        SIDE,
        is_training=True,
        scale=settings.scale,
        ratio=settings.ratio,
        interpolation=settings.interpolation,
        hflip=settings.hflip,
        auto_augment=settings.auto_augment,
        color_jitter=None,
        re_prob=settings.reprob,
        re_mode="pixel",
        mean=MEAN,
        std=STD,
    )
    allow_black(*transform.transforms)
    return create_dataset("", root / "train", transform=transform)


def forms(root: Path, settings: ImageAugmentation | None) -> dict[str, torch.utils.data.Dataset]:
    """Return the datasets that are compared, by name."""
    found = {"timm": timm_dataset(root, settings)}
    if settings is None:
        return {**found, "pil": Reader(root, "val", num_classes=1, image_size=SIDE)}
    for backend in ("pil", "tensor"):
        augmentation = dataclasses.replace(settings, backend=backend)
        found[backend] = Reader(root, "train", num_classes=1, image_size=SIDE, augmentation=augmentation)
    return found


def seconds(data: torch.utils.data.Dataset, epoch: int) -> float:
    """Return the processor time of an epoch."""
    keys = [(epoch, index) for index in range(len(data))] if isinstance(data, Reader) else None
    loader = DataLoader(data, BATCH, sampler=keys)
    began = time.process_time()
    for _ in loader:
        pass
    return time.process_time() - began


def measure(name: str, root: Path, rounds: int) -> None:
    """Measure a view and print a line for each form."""
    datasets = forms(root, VIEWS[name])
    times: dict[str, list[float]] = {form: [] for form in datasets}
    for number in range(rounds + 1):
        for form, data in datasets.items():
            taken = seconds(data, number)
            if number:  # the first is for the caches
                times[form].append(taken)
    for form, data in datasets.items():
        rate = len(data) / statistics.median(times[form])
        ratio, limit = median_ratio(times["timm"], times[form]), LIMITS.get((name, form))
        wanted = f"{limit or '':>6}" + (" under" if limit and ratio < limit else "")
        print(f"{name:<12} {form:<7} {rate:7.0f} images/s {ratio:6.2f} {wanted}".rstrip())


def main() -> None:
    """Measure the views, one after the other."""
    parser = argparse.ArgumentParser(description="Images per second of the ImageNet reader on one core")
    parser.add_argument("--views", nargs="+", choices=VIEWS, default=list(VIEWS), help="all by default")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    versions = {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "Pillow": __version__,
    }
    print(*(f"{name} {version}" for name, version in versions.items()), "rounds", arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        size = write_pictures(Path(folder), arguments.pictures)
        print(f"{arguments.pictures} files of {size / 1e3:.0f} kB")
        print(f"{'view':<12} {'form':<7} {'rate':>16} {'ratio':>6} {'limit':>6}")
        for name in arguments.views:
            measure(name, Path(folder), arguments.rounds)


if __name__ == "__main__":
    main()
