"""A layout: images as arrays, `{train,val}/<class>-<number>.npy`, each (3, S, S)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m2pt.datasets.base import SeededDataset
from m2pt.datasets.miniature.staging import staged, write_record
from m2pt.errors import InputError

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Noise:
    """Augmentation: noise of this standard deviation."""

    noise: float = 0.0


class Reader(SeededDataset):
    """Arrays and classes."""

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        image_size: int,
        seed: int = 0,
        augmentation: Noise | None = None,
    ) -> None:
        super().__init__(seed)
        if len(classes(root)) != num_classes:
            raise InputError(f"{root} has not num_classes = {num_classes}")
        self.paths = sorted((root / split).glob("*.npy"))
        self.noise = augmentation.noise if augmentation else 0.0

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(np.load(self.paths[index]))
        return image + self.noise * torch.randn_like(image), int(self.paths[index].name.partition("-")[0])


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    return [
        f"{path} is no array." for path in root.glob("*/*") if not re.fullmatch(r"\d+-\d+\.npy", path.name)
    ]


def files(root: Path) -> Iterator[Path]:
    return root.glob("*/*.npy")


def classes(root: Path) -> list[str]:
    return sorted({path.name.partition("-")[0] for path in (root / "train").glob("*.npy")})


def counts(root: Path) -> dict[str, int]:
    return {split: len(list((root / split).glob("*.npy"))) for split in SPLITS}


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: Noise | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    images = torch.randn(batch_size, 3, input["image_size"], input["image_size"], device=device)
    return images, torch.randint(num_classes, (batch_size,), device=device)


def build(
    root: Path, *, seed: int, train: int = 8, val: int = 4, image_size: int = 32, channels: int = 3
) -> None:
    rng = np.random.default_rng(seed)
    with staged(root) as folder:
        for split, count in (("train", train), ("val", val)):
            (folder / split).mkdir()
            for number in range(count):
                image = rng.normal(number % 2, 1, (channels, image_size, image_size)).astype(np.float32)
                np.save(folder / split / f"{number % 2}-{number}.npy", image)
        write_record(folder, seed=seed, sizes={"train": train, "val": val}, sources={})
