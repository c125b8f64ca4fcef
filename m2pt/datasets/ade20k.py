"""ADE20K as ADEChallengeData2016: `{images,annotations}/{training,validation}` and `objectInfo150.txt`.

An annotation is an 8-bit PNG of its image's size: 0 is unlabelled and ignored, k is the k-th class.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from m2pt.datasets.augmentation import settings_of
from m2pt.datasets.framing import Frame, normalized, random_frame
from m2pt.datasets.images import (
    FILL,
    decoding_fault,
    image_names,
    image_size,
    open_image,
    unreadable,
    unreadable_message,
)
from m2pt.datasets.seeded import SeededDataset
from m2pt.errors import InputError

FOLDERS = {"train": "training", "val": "validation"}

IGNORE = 255
"""The label of a pixel that has none."""

CROP_TRIES = 10
"""Crops drawn until one has no class above `cat_max_ratio` (mmsegmentation's RandomCrop)."""

QUICK_SAMPLE = 500
"""Annotations of each split that the quick check decodes; the full check decodes all of them."""


@dataclass(frozen=True)
class Augmentation:
    """The image's shorter side becomes `scale` times the view's, then a random crop, flip and distortion.

    No class may cover more than `cat_max_ratio` of the crop; `hflip` is a probability; `color_jitter` is the
    strength of the photometric distortion (1: mmsegmentation's).
    """

    scale: tuple[float, float] = (1.0, 1.0)
    cat_max_ratio: float = 1.0
    hflip: float = 0.5
    color_jitter: float | None = None


class Reader(SeededDataset):
    """Images and label maps: `(float32 (3, S, S), int64 (S, S))` with S = `image_size`, ImageNet-normalised.

    Labels are 0..num_classes-1, and 255 where a pixel is unlabelled or padding. `augmentation` has the
    optional keys of `Augmentation`. `None` is mmsegmentation's evaluation view: the whole image with its
    shorter side resized to S, and the label map in the size of its file. Files differ in size: load such
    views one by one.

    Raises:
        InputError: a file is missing or not as expected.
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
        self._images, self._annotations = (root / kind / FOLDERS[split] for kind in ("images", "annotations"))
        self._names = image_names(self._images)
        if not self._names:
            raise InputError(
                f"{self._images} is missing or holds no image: it is not an ADEChallengeData2016 folder."
            )
        self._num_classes = num_classes
        self._side = image_size
        self._augmentation = settings_of(Augmentation, augmentation)
        self._distort = (
            photometric_distortion(self._augmentation.color_jitter) if self._augmentation else None
        )

    def __len__(self) -> int:
        return len(self._names)

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Decode image and annotation `index` and apply the view."""
        image, label = open_image(self._images / self._names[index]), self._label(index)
        height, width = label.shape
        if image.size != (width, height):
            path = self._annotation(index)
            raise InputError(f"{path} is {width}x{height}, but its image is {image.size[0]}x{image.size[1]}.")
        pixels: Tensor = tv_tensors.Image(image)
        target: Tensor = tv_tensors.Mask(torch.from_numpy(label))
        if self._augmentation is None:
            pixels = F.resize(pixels, [self._side], antialias=True)
        else:
            frame = self._crop(label, self._augmentation)
            pixels, target = frame.apply(pixels, FILL), frame.apply(target, IGNORE)
            if torch.rand(()) < self._augmentation.hflip:
                pixels, target = F.horizontal_flip(pixels), F.horizontal_flip(target)
        if self._distort is not None:
            pixels = self._distort(pixels)
        return normalized(pixels.as_subclass(Tensor)), target.as_subclass(Tensor).long()

    def _label(self, index: int) -> NDArray[np.uint8]:
        """Return the label map of item `index`, 255 where it is to be ignored."""
        stored = read_labels(self._annotation(index))
        if stored.max() > self._num_classes:
            path = self._annotation(index)
            raise InputError(f"{path} has label {stored.max()}, but num_classes is {self._num_classes}.")
        return stored - np.uint8(1)  # 0 wraps round to 255 = IGNORE

    def _annotation(self, index: int) -> Path:
        return (self._annotations / self._names[index]).with_suffix(".png")

    def _crop(self, label: NDArray[np.uint8], settings: Augmentation) -> Frame:
        height, width = label.shape
        ratio = float(torch.empty(()).uniform_(*settings.scale)) * self._side / min(height, width)
        frame = random_frame(height, width, self._side, ratio)
        for _ in range(CROP_TRIES - 1):
            whole = (frame.height, frame.width) == label.shape
            if whole or largest_share(frame, label) <= settings.cat_max_ratio:
                break
            frame = random_frame(height, width, self._side, ratio)
        return frame


def largest_share(frame: Frame, label: NDArray[np.uint8]) -> float:
    """Return the share of the most frequent class among the labelled pixels of a window; 1 if it has none."""
    window = label[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width]
    pixels = np.bincount(window.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return float(pixels.max() / pixels.sum()) if pixels.any() else 1.0


def photometric_distortion(strength: float | None) -> v2.Compose | None:
    """Return mmsegmentation's distortion times `strength`; each part has its turn with probability 1/2."""
    if not strength:
        return None
    parts = {"brightness": 32 / 255, "contrast": 0.5, "saturation": 0.5, "hue": 18 / 360}
    return v2.Compose(
        [v2.RandomApply([v2.ColorJitter(**{name: size * strength})]) for name, size in parts.items()]
    )


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Return the labels (H, W) as they stand in an annotation file.

    Raises:
        InputError: the file is missing, truncated, or not an image of 8 bits a pixel.
    """
    try:
        with Image.open(path) as image:
            labels = np.asarray(image)
    except OSError as error:
        raise InputError(unreadable_message(path, error)) from error
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise InputError(f"{path} is {labels.dtype} of shape {labels.shape}, not 8 bits a pixel.")
    return labels


def classes(root: Path) -> list[str]:
    """Return the names of the classes, the last column of `objectInfo150.txt`.

    Raises:
        InputError: the file is missing.
    """
    path = root / "objectInfo150.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): it names ADE20K's classes.") from error
    return [line.split("\t")[-1].strip() for line in lines[1:] if line.strip()]


def counts(root: Path) -> dict[str, int]:
    """Return the number of images of each split."""
    return {split: len(image_names(root / "images" / folder)) for split, folder in FOLDERS.items()}


def files(root: Path) -> Iterator[Path]:
    """Yield the list of classes, every image and every annotation."""
    yield root / "objectInfo150.txt"
    for kind in ("images", "annotations"):
        for split in FOLDERS.values():
            folder = root / kind / split
            yield from (folder / name for name in image_names(folder))


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every fault; the quick form decodes only `QUICK_SAMPLE` evenly spaced annotations of a split."""
    faults = []
    try:
        if (named := len(classes(root))) != num_classes:
            faults.append(f"{root / 'objectInfo150.txt'} names {named} classes, not {num_classes}.")
    except InputError as error:
        faults.append(str(error))
    for split in FOLDERS.values():
        images, annotations = root / "images" / split, root / "annotations" / split
        missing = [folder for folder in (images, annotations) if not folder.is_dir()]
        faults += [f"{folder} is missing." for folder in missing]
        if not missing:
            faults += _split_faults(images, annotations, num_classes, full)
    return list(dict.fromkeys(faults))


def _split_faults(images: Path, annotations: Path, num_classes: int, full: bool) -> Iterator[str]:
    image_of = {Path(name).stem: images / name for name in image_names(images)}
    annotation_of = {Path(name).stem: annotations / name for name in image_names(annotations)}
    yield from (
        f"{image_of[stem]} has no annotation." for stem in sorted(image_of.keys() - annotation_of.keys())
    )
    yield from (
        f"{annotation_of[stem]} has no image." for stem in sorted(annotation_of.keys() - image_of.keys())
    )
    if full:
        yield from unreadable(image_of.values(), what=images.name)
    stems = sorted(image_of.keys() & annotation_of.keys())
    sampled = stems if full else stems[:: math.ceil(len(stems) / QUICK_SAMPLE) or 1]
    occurring = np.zeros(IGNORE + 1, bool)
    for stem in tqdm(sampled, desc=f"reading {annotations.name} of {images.name}", unit="file", disable=None):
        faults, labels = _inspect(image_of[stem], annotation_of[stem], num_classes)
        yield from faults
        occurring[labels] = True
    if len(sampled) == len(stems):
        empty = np.flatnonzero(~occurring[1 : num_classes + 1]) + 1
        yield from (f"{annotations}: class {label} is empty, no annotation has it." for label in empty)


def _inspect(image: Path, annotation: Path, num_classes: int) -> tuple[list[str], NDArray[np.uint8]]:
    """Return the faults of an annotation, and the labels that occur in it."""
    try:
        stored = read_labels(annotation)
    except InputError as error:
        return [str(error)], np.empty(0, np.uint8)
    faults, labels = [], np.unique(stored)
    if labels[-1] > num_classes:
        faults.append(f"{annotation} has label {labels[-1]}, but there are {num_classes} classes.")
    size = image_size(image)
    if size is None:
        faults.append(str(decoding_fault(image)))
    elif size != stored.shape[::-1]:
        height, width = stored.shape
        faults.append(f"{annotation} is {width}x{height}, but its image is {size[0]}x{size[1]}.")
    return faults, labels
