"""ImageNet-1k, unpacked into folders: `{train,val}/<wnid>/*.JPEG`; a label is the rank of its wnid.

Or in shards (`m2pt.datasets.imagenet_shards`), which `pack` makes: the same samples in few files.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose

from m2pt.datasets import imagenet_shards
from m2pt.datasets.augmentations import ImageAugmentation, policy_errors
from m2pt.datasets.base import PackedList, SeededDataset
from m2pt.datasets.checks import check_files, error_of, quick_sample, raise_problems
from m2pt.datasets.corrupt import separate
from m2pt.datasets.framing import normalized
from m2pt.datasets.images import (
    MEAN,
    folder_names,
    image_names,
    open_image,
    unread_files,
)
from m2pt.datasets.shards import load_index, shard_names
from m2pt.errors import InputError

SPLITS = ("train", "val")

EVALUATION_CROP = 224 / 256
"""Central crop of the resized image in evaluation (MAE's `build_transform`)."""


class Reader(SeededDataset):
    """Images and labels: `(float32 (3, image_size, image_size), int)`, ImageNet-normalized.

    The samples of shards are those of the folders that they were packed from.

    Without `augmentation` the transform is that of evaluation: shorter side to `image_size * 256 / 224`, then
    the central crop.

    Raises:
        InputError: a folder is missing or empty, a shard is invalid, or the number of classes is not
            `num_classes`.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        image_size: int,
        seed: int = 0,
        augmentation: ImageAugmentation | None = None,
    ) -> None:
        super().__init__(seed)
        images = imagenet_shards.ShardImages if has_shards(root) else FolderImages
        self._images = images(root, split, num_classes)
        self._view = training_view(image_size, augmentation) if augmentation else evaluation_view(image_size)
        self._decode: Callable[[Path, bytes | None], Any] = open_image
        if augmentation and augmentation.backend == "tensor":
            from m2pt.datasets.pixels import open_pixels

            self._decode = open_pixels

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> tuple[Tensor, int]:
        """Decode and transform image `index`."""
        path, content, label = self._images[index]
        return self._view(self._decode(path, content)), label


class FolderImages:
    """Images and labels of a split in folders, by wnid and name.

    Raises:
        InputError: a folder is missing or empty, or the number of classes is not `num_classes`.
    """

    def __init__(self, root: Path, split: str, num_classes: int) -> None:
        self._folder = root / split
        wnids = folder_names(root / "train")
        if len(wnids) != num_classes:
            raise InputError(
                f"{root / 'train'} has {len(wnids)} class folders, not num_classes = {num_classes}."
            )
        self.items = PackedList(
            (label, f"{wnid}/{name}")
            for label, wnid in enumerate(wnids)
            for name in image_names(self._folder / wnid)
        )
        """Label and name below the split's folder of each image."""
        if not self.items:
            raise InputError(
                f"{self._folder} has no image in folders with the names of those in {root / 'train'}."
            )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Path, None, int]:
        """Return file, None and label, as `ShardImages`."""
        label, name = self.items[index]
        return self._folder / name, None, label


def has_shards(root: Path) -> bool:
    """Return whether a dataset is in shards: there are tar files in `train`, and no class folders."""
    return bool(shard_names(root / "train")) and not folder_names(root / "train")


def training_view(image_size: int, settings: ImageAugmentation) -> Callable[[Any], Tensor]:
    """Return timm's training transform: of an RGB image or, with `backend: tensor`, of its pixels."""
    from timm.data import create_transform  # imported here: it takes 2 s, and a check does not need it
    from timm.data.random_erasing import RandomErasing

    from m2pt.datasets.policies import allow_black
    from m2pt.datasets.tensor_crop import TensorResizedCrop

    geometry_and_colors = create_transform(
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
    allow_black(*geometry_and_colors.transforms)
    if settings.backend == "tensor":
        crop = TensorResizedCrop(image_size, settings.scale, settings.ratio, settings.interpolation)
        of_pil = bool(settings.auto_augment or settings.color_jitter)
        geometry_and_colors.transforms[:1] = [crop, as_image] if of_pil else [crop]
    erasing = [RandomErasing(settings.reprob, mode="pixel", device="cpu")] if settings.reprob else []
    return Compose([geometry_and_colors, by_channel, normalized, *erasing])


def evaluation_view(image_size: int) -> Callable[[Image.Image], Tensor]:
    """Return timm's evaluation transform: bicubic resize of the shorter side, central crop, normalize."""
    from timm.data import create_transform

    crop = create_transform(image_size, crop_pct=EVALUATION_CROP, interpolation="bicubic", normalize=False)
    return Compose([crop, by_channel, normalized])


def by_channel(pixels: Tensor) -> Tensor:
    """Return (3, H, W) as float32, one channel after the other in memory: these are faster to normalize."""
    return torch.empty(pixels.shape).copy_(pixels)


def as_image(pixels: Tensor) -> Image.Image:
    """Return uint8 (3, H, W) as an RGB image."""
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def check_augmentation(augmentation: ImageAugmentation, input: Mapping[str, Any]) -> None:
    """Build the training view.

    Raises:
        InputError: timm does not know the policy `auto_augment`.
    """
    with policy_errors(augmentation.auto_augment):
        training_view(input["image_size"], augmentation)


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: ImageAugmentation | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return random images (B, 3, S, S), S = `image_size`, and labels (B,)."""
    side = input["image_size"]
    images = torch.randn(batch_size, 3, side, side, device=device)
    return images, torch.randint(num_classes, (batch_size,), device=device)


def classes(root: Path) -> list[str]:
    """Return the wnids in label order: the sorted names of the folders in `train`, or those of the shards."""
    return imagenet_shards.classes(root) if has_shards(root) else folder_names(root / "train")


def counts(root: Path) -> dict[str, int]:
    """Return the number of images of each split."""
    if has_shards(root):
        return {split: len(load_index(root / split)) for split in SPLITS}
    return {split: sum(1 for _ in _names(root, split)) for split in SPLITS}


def files(root: Path) -> Iterator[Path]:
    """Yield every image or shard."""
    if has_shards(root):
        return imagenet_shards.files(root, SPLITS)
    return (root / split / name for split in SPLITS for name in _names(root, split))


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every problem: missing folders, unpaired or empty classes, unread files and broken images.

    The quick check decodes a sample of each split (`checks.QUICK_SAMPLE`), the full one every image. For
    shards see `imagenet_shards.check`.
    """
    if has_shards(root):
        return imagenet_shards.check(root, SPLITS, num_classes=num_classes, full=full)
    problems = [f"{root / split} is missing." for split in SPLITS if not (root / split).is_dir()]
    found = {split: folder_names(root / split) for split in SPLITS if (root / split).is_dir()}
    for split, wnids in found.items():
        folder = root / split
        if len(wnids) != num_classes:
            problems.append(f"{folder} has {len(wnids)} class folders, not num_classes = {num_classes}.")
        if loose := image_names(folder):
            problems.append(
                f"{folder} has {len(loose)} images outside class folders, such as {loose[0]}: "
                "move them into one."
            )
        problems += unread_files(folder, of_classes=True)
        for wnid in wnids:
            if not image_names(folder / wnid):
                problems.append(f"{folder / wnid} is an empty class.")
            problems += unread_files(folder / wnid)
    if len(found) == len(SPLITS):
        train, val = (set(found[split]) for split in SPLITS)
        problems += [
            f"{root / 'val' / wnid} is missing, but it is a class of train." for wnid in sorted(train - val)
        ]
        problems += [f"{root / 'val' / wnid} is not a class of train." for wnid in sorted(val - train)]
    for split in found:
        names = quick_sample(list(_names(root, split)), full=full)
        paths = [root / split / name for name in names]
        read = partial(error_of, open_image)
        problems += check_files(paths, read, what=f"imagenet {split}", training=split == "train")
    return problems


def pack(source: Path, target: Path, *, samples_per_shard: int) -> list[str]:
    """Pack the folders of a dataset into shards; see `imagenet_shards.pack`.

    Corrupt training images are packed as they are, up to the bound that trainings have for them.

    Returns:
        A problem for each corrupt training image that was found.

    Raises:
        InputError: the dataset is in shards already or has other problems, or `target` has other files or is
            in the folder of a split.
    """
    if has_shards(source):
        raise InputError(f"{source} is in shards already.")
    for split in SPLITS:
        if target.resolve().is_relative_to((source / split).resolve()):
            raise InputError(
                f"{target} is in {source / split}, where shards would be taken for images or classes: choose "
                "another folder."
            )
    wnids = folder_names(source / "train")
    problems, corrupt = separate(check(source, num_classes=len(wnids), full=False))
    raise_problems(problems)
    if folders := folder_names(target / "train"):
        raise InputError(f"{target / 'train'} has folders, such as {folders[0]}: choose another folder.")
    for split in SPLITS:
        items = FolderImages(source, split, len(wnids)).items
        imagenet_shards.pack(source / split, target / split, items, samples_per_shard)
    imagenet_shards.write_classes(target, wnids)
    return corrupt


def _names(root: Path, split: str) -> Iterator[str]:
    for wnid in folder_names(root / split):
        for name in image_names(root / split / wnid):
            yield f"{wnid}/{name}"
