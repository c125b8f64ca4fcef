"""ADE20K as ADEChallengeData2016: `{images,annotations}/{training,validation}` and `objectInfo150.txt`.

An annotation is an 8-bit PNG of its image's size: 0 is unlabeled and ignored, k is the k-th class. Its name
is that of the image, apart from the suffix.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageFile
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from m2pt.datasets.augmentations import SegmentationAugmentation
from m2pt.datasets.base import PackedList, SeededDataset
from m2pt.datasets.checks import check_files, quick_sample, raise_problems
from m2pt.datasets.corrupt import CorruptSample, DatasetError
from m2pt.datasets.framing import Frame, normalized, random_frame
from m2pt.datasets.images import (
    FILL,
    image_names,
    image_size,
    open_image,
    opened,
    unread_files,
)
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes
from m2pt.models.settings import IGNORED

FOLDERS = {"train": "training", "val": "validation"}

_LABEL_PIXELS = ("L", "P", "P;1", "P;2", "P;4")
"""Supported pixel formats of PNG files. Pillow would rescale gray pixels of 2 or 4 bits."""

CROP_TRIES = 10
"""Most crops drawn to find one without a class above `cat_max_ratio` (mmsegmentation's RandomCrop)."""


class Reader(SeededDataset):
    """Images and label maps: `(float32 (3, S, S), int64 (S, S))` with S = `image_size`, ImageNet-normalized.

    Labels are 0..num_classes-1, and 255 where a pixel is unlabeled or padding. Without `augmentation` the
    transform is mmsegmentation's in evaluation: the whole image with its shorter side resized to S, and the
    label map in its original size. Sizes then differ between images: load them one by one.

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
        augmentation: SegmentationAugmentation | None = None,
    ) -> None:
        super().__init__(seed)
        self._images, self._annotations = (root / kind / FOLDERS[split] for kind in ("images", "annotations"))
        names, problems = paired(self._images, self._annotations)
        raise_problems(problems)
        if not names:
            raise InputError(
                f"{self._images} is missing or has no image: {root} is not an ADEChallengeData2016 folder."
            )
        self._pairs = PackedList(names)
        self._num_classes = num_classes
        self._side = image_size
        self._augmentation = augmentation
        self._distort = photometric_distortion(augmentation.color_jitter) if augmentation else None

    def __len__(self) -> int:
        return len(self._pairs)

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Decode and transform image and annotation `index`."""
        name, annotation = self._pairs[index]
        image, label = open_image(self._images / name), self._label(self._annotations / annotation)
        height, width = label.shape
        if image.size != (width, height):
            raise InputError(size_message(self._annotations / annotation, (width, height), image.size))
        pixels: Tensor = tv_tensors.Image(image)
        target: Tensor = tv_tensors.Mask(torch.from_numpy(label))
        if self._augmentation is None:
            pixels = F.resize(pixels, [self._side], antialias=True)
        else:
            frame = self._crop(label, self._augmentation)
            pixels, target = frame.apply(pixels, FILL), frame.apply(target, IGNORED)
            if torch.rand(()) < self._augmentation.hflip:
                pixels, target = F.horizontal_flip(pixels), F.horizontal_flip(target)
        if self._distort is not None:
            pixels = self._distort(pixels)
        return normalized(pixels.as_subclass(Tensor)), target.as_subclass(Tensor).long()

    def _label(self, path: Path) -> NDArray[np.uint8]:
        """Return the label map in an annotation file, 255 where pixels are ignored."""
        stored = read_labels(path)
        if stored.max() > self._num_classes:
            raise DatasetError(f"{path} has label {stored.max()}, but num_classes is {self._num_classes}.")
        return stored - np.uint8(1)  # 0 wraps round to 255 = IGNORED

    def _crop(self, label: NDArray[np.uint8], settings: SegmentationAugmentation) -> Frame:
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
    """Return the share of the most frequent class among the labeled pixels of a window; 1 if it has none."""
    window = label[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width]
    pixels = np.bincount(window.ravel(), minlength=IGNORED + 1)[:IGNORED]
    return float(pixels.max() / pixels.sum()) if pixels.any() else 1.0


def photometric_distortion(strength: float | None) -> v2.Compose | None:
    """Return mmsegmentation's distortion times `strength`; each part is applied with probability 1/2."""
    if not strength:
        return None
    parts = {"brightness": 32 / 255, "contrast": 0.5, "saturation": 0.5, "hue": 18 / 360}
    return v2.Compose(
        [v2.RandomApply([v2.ColorJitter(**{name: size * strength})]) for name, size in parts.items()]
    )


def paired(images: Path, annotations: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the names of image and annotation of every sample, and a problem for each unpaired file."""
    files: dict[str, dict[Path, list[str]]] = defaultdict(lambda: {images: [], annotations: []})
    for folder in (images, annotations):
        for name in image_names(folder):
            files[Path(name).stem][folder].append(name)
    pairs, problems = [], []
    for found in files.values():
        pictures, labels = found[images], found[annotations]
        problems += [f"{images / name} has no annotation." for name in pictures if not labels]
        problems += [f"{annotations / name} has no image." for name in labels if not pictures]
        for folder, (first, *others) in ((images, pictures or [""]), (annotations, labels or [""])):
            problems += [
                f"{folder / name} differs from {first} only in its suffix; remove one." for name in others
            ]
        problems += [
            f"{annotations / name} must be a PNG file and end in .png."
            for name in labels
            if not name.lower().endswith(".png")
        ]
        if pictures and labels:
            pairs.append((pictures[0], labels[0]))
    return pairs, problems


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Return the labels (H, W) as an annotation file stores them.

    Raises:
        InputError: the file is missing, truncated, or not a PNG of 8 bits a pixel.
    """
    with _opened_labels(path) as image:
        return np.asarray(image)


@contextmanager
def _opened_labels(path: Path) -> Iterator[ImageFile.ImageFile]:
    with opened(path, ("PNG",)) as image:
        stored = image.tile[0][3] if image.tile else image.mode
        if stored not in _LABEL_PIXELS:
            raise InputError(f"{path} stores pixels as {stored}, not with 8 bits; save labels as 8-bit gray.")
        yield image


def size_message(annotation: Path, size: tuple[int, int], image_size: tuple[int, int]) -> str:
    """Return the message for an annotation that differs in size from its image; sizes are (width, height)."""
    return f"{annotation} is {size[0]}x{size[1]}, but its image is {image_size[0]}x{image_size[1]}."


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: SegmentationAugmentation | None,
    device: torch.device,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return random images (3, S, S), S = `image_size`, and label maps (S, S), a list of each."""
    side = input["image_size"]
    images = torch.randn(batch_size, 3, side, side, device=device)
    return list(images), list(torch.randint(num_classes, (batch_size, side, side), device=device))


def classes(root: Path) -> list[str]:
    """Return the names of the classes, the last column of `objectInfo150.txt`.

    Raises:
        InputError: the file is missing or not UTF-8, or its lines do not list the classes in order.
    """
    path = root / "objectInfo150.txt"
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}); it must list the classes.") from None
    names: list[str] = []
    for place, line in enumerate(lines[1:], 2):
        columns = [column.strip() for column in line.split("\t")]
        if not any(columns):
            continue
        if len(columns) < 2 or columns[0] != str(len(names) + 1) or not columns[-1]:
            raise InputError(
                f"{path}, line {place}: must be class {len(names) + 1} as number, tab, ..., tab, name."
            )
        names.append(columns[-1])
    return names


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
    """Return every problem; the quick check reads all headers, but decodes only a sample of each split."""
    problems = []
    try:
        if (named := len(classes(root))) != num_classes:
            problems.append(
                f"{root / 'objectInfo150.txt'} names {named} classes, not num_classes = {num_classes}."
            )
    except InputError as error:
        problems.append(str(error))
    for split, folder_name in FOLDERS.items():
        images, annotations = (root / kind / folder_name for kind in ("images", "annotations"))
        missing = [folder for folder in (images, annotations) if not folder.is_dir()]
        problems += [f"{folder} is missing." for folder in missing]
        if not missing:
            training = split == "train"
            problems += _split_problems(images, annotations, num_classes, training=training, full=full)
    return list(dict.fromkeys(problems))


def _split_problems(
    images: Path, annotations: Path, num_classes: int, *, training: bool, full: bool
) -> Iterator[str]:
    names, unpaired = paired(images, annotations)
    yield from unpaired
    yield from unread_files(images)
    yield from unread_files(annotations)
    annotation_of = {images / name: annotations / annotation for name, annotation in names}
    decoded = quick_sample(list(annotation_of), full=full)
    decoded_set = set(decoded)

    def header_problem(image: Path) -> str | None:
        try:
            size = image_size(image, decode=image in decoded_set)
            with _opened_labels(annotation_of[image]) as labels:
                labels_size = labels.size
        except InputError as error:
            return str(error)
        return None if size == labels_size else size_message(annotation_of[image], labels_size, size)

    what = f"images of {images.name}"
    yield from check_files(list(annotation_of), header_problem, what=what, training=training)
    occurring = np.zeros(max(IGNORED, num_classes) + 1, bool)
    for image in tqdm(decoded, desc=f"reading annotations of {images.name}", unit="file", disable=None):
        try:
            labels = np.unique(read_labels(annotation_of[image]))
        except InputError as error:
            yield CorruptSample(str(error), len(annotation_of)) if training else str(error)
            continue
        if labels[-1] > num_classes:
            yield f"{annotation_of[image]} has label {labels[-1]}, but there are {num_classes} classes."
        occurring[labels] = True
    if len(decoded) == len(annotation_of):
        empty = np.flatnonzero(~occurring[1 : num_classes + 1]) + 1
        yield from (f"{annotations}: class {label} is empty: no annotation has it." for label in empty)
