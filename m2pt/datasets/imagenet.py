"""ImageNet-1k as everybody unpacks it: `{train,val}/<wnid>/*.JPEG`; a label is the rank of its wnid."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose

from m2pt.datasets.augmentation import settings_of
from m2pt.datasets.faults import sampled
from m2pt.datasets.framing import normalized
from m2pt.datasets.images import (
    MEAN,
    folder_names,
    image_names,
    open_image,
    stray_faults,
    unreadable,
)
from m2pt.datasets.packed import PackedList
from m2pt.datasets.seeded import SeededDataset
from m2pt.errors import InputError

SPLITS = ("train", "val")

EVALUATION_CROP = 224 / 256
"""The central part of the resized image that evaluation looks at (MAE's `build_transform`)."""


@dataclass(frozen=True)
class Augmentation:
    """Training view: random resized crop, flip, colours, random erasing with noise.

    `scale` and `ratio` bound the crop's area and aspect; `auto_augment` is timm's name of a RandAugment such
    as "rand-m9-mstd0.5-inc1"; `color_jitter` is a strength, unused beside `auto_augment`, as in timm; `hflip`
    and `reprob` are probabilities.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    hflip: float = 0.5
    auto_augment: str | None = None
    color_jitter: float | None = None
    reprob: float = 0.0


class Reader(SeededDataset):
    """Images and labels: `(float32 (3, image_size, image_size), int)`, ImageNet-normalised.

    `augmentation` has the optional keys of `Augmentation`. `None` is the evaluation view: shorter side to
    `image_size * 256 / 224`, then the central crop.

    Raises:
        InputError: a folder is missing or empty, or the number of classes is not `num_classes`.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        image_size: int,
        seed: int = 0,
        augmentation: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(seed)
        self._folder = root / split
        wnids = classes(root)
        if len(wnids) != num_classes:
            raise InputError(
                f"{root / 'train'} has {len(wnids)} class folders, not num_classes = {num_classes}."
            )
        self._items = PackedList(
            (label, f"{wnid}/{name}")
            for label, wnid in enumerate(wnids)
            for name in image_names(self._folder / wnid)
        )
        if not self._items:
            raise InputError(f"{self._folder} holds no image in folders named as those of {root / 'train'}.")
        settings = settings_of(Augmentation, augmentation)
        self._view = training_view(image_size, settings) if settings else evaluation_view(image_size)

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, int]:
        """Decode image `index` and apply the view."""
        label, name = self._items[index]
        return self._view(open_image(self._folder / name)), label


def training_view(image_size: int, settings: Augmentation) -> Callable[[Image.Image], Tensor]:
    """Return timm's training transform."""
    from timm.data import create_transform  # not at the top: a check needs no timm, which takes 2 s to import
    from timm.data.random_erasing import RandomErasing

    geometry_and_colours = create_transform(
        image_size,
        is_training=True,
        scale=settings.scale,
        ratio=settings.ratio,
        interpolation=settings.interpolation,
        hflip=settings.hflip,
        auto_augment=settings.auto_augment,
        color_jitter=settings.color_jitter or None,  # type: ignore[arg-type]  # timm: None is off
        mean=MEAN,
        normalize=False,
    )
    erasing = [RandomErasing(settings.reprob, mode="pixel", device="cpu")] if settings.reprob else []
    return Compose([geometry_and_colours, normalized, *erasing])


def evaluation_view(image_size: int) -> Callable[[Image.Image], Tensor]:
    """Return timm's evaluation transform: bicubic resize of the shorter side, central crop, normalise."""
    from timm.data import create_transform

    crop = create_transform(image_size, crop_pct=EVALUATION_CROP, interpolation="bicubic", normalize=False)
    return Compose([crop, normalized])


def classes(root: Path) -> list[str]:
    """Return the wnids in label order: the sorted names of the folders in `train`."""
    return folder_names(root / "train")


def counts(root: Path) -> dict[str, int]:
    """Return the number of images of each split."""
    return {split: sum(1 for _ in _names(root, split)) for split in SPLITS}


def files(root: Path) -> Iterator[Path]:
    """Yield every image."""
    return (root / split / name for split in SPLITS for name in _names(root, split))


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every fault: missing folders, odd or empty classes, what is not read, and unreadable images.

    The quick form decodes a sample of each split (`faults.QUICK_SAMPLE`), the full form every image.
    """
    faults = [f"{root / split} is missing." for split in SPLITS if not (root / split).is_dir()]
    found = {split: folder_names(root / split) for split in SPLITS if (root / split).is_dir()}
    for split, wnids in found.items():
        folder = root / split
        if len(wnids) != num_classes:
            faults.append(f"{folder} has {len(wnids)} class folders, not {num_classes}.")
        if loose := image_names(folder):
            faults.append(
                f"{folder} holds {len(loose)} images outside class folders, such as {loose[0]}: sort them."
            )
        faults += stray_faults(folder, of_classes=True)
        for wnid in wnids:
            if not image_names(folder / wnid):
                faults.append(f"{folder / wnid} is an empty class.")
            faults += stray_faults(folder / wnid)
    if len(found) == len(SPLITS):
        train, val = (set(found[split]) for split in SPLITS)
        faults += [
            f"{root / 'val' / wnid} is missing: it is a class of train." for wnid in sorted(train - val)
        ]
        faults += [f"{root / 'val' / wnid} is not a class of train." for wnid in sorted(val - train)]
    for split in found:
        names = sampled(list(_names(root, split)), full=full)
        faults += unreadable((root / split / name for name in names), what=f"imagenet {split}")
    return faults


def _names(root: Path, split: str) -> Iterator[str]:
    for wnid in folder_names(root / split):
        for name in image_names(root / split / wnid):
            yield f"{wnid}/{name}"
