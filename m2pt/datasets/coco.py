"""COCO 2017: `annotations/instances_{train,val}2017.json` beside `train2017/` and `val2017/`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from m2pt.datasets.augmentations import DetectionAugmentation
from m2pt.datasets.base import PackedList, SeededDataset
from m2pt.datasets.checks import check_files, quick_sample, raise_problems
from m2pt.datasets.coco_records import Instance, Picture, Records, decode_mask, read_records
from m2pt.datasets.framing import Frame, fit, normalized, random_frame
from m2pt.datasets.images import FILL, image_names, image_size, open_image, unread_files
from m2pt.errors import InputError

SPLITS = ("train", "val")

BOXES = 8
"""Instances in each image of a synthetic batch; COCO's training images have 7.3 on average."""

T = TypeVar("T", bound=Tensor)


class Reader(SeededDataset):
    """Images and their instances: `(float32 (3, S, S), target)`, S = `image_size`, ImageNet-normalized.

    The target is that of torchvision's Mask R-CNN: `boxes` float32 (N, 4) x1 y1 x2 y2 in pixels of the view,
    `labels` int64 (N,) in 1..num_classes (ranks of the ids, which are in `category_ids`), `masks` uint8
    (N, S, S), `image_id` int64 (), `area` float32 (N,) pixels of the mask, `iscrowd` int64 (N,). To map
    predictions back, `original_size` and `view_size` int64 (2,) are height and width of the file and of its
    part of the view; the rest of the view is padding.

    Without `augmentation` the view is the whole image, as large as it fits.
    "train" has neither crowds nor images without an instance; "val" has both.

    Raises:
        InputError: a file is missing or not as expected, or the number of categories is not `num_classes`.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        image_size: int,
        seed: int = 0,
        augmentation: DetectionAugmentation | None = None,
    ) -> None:
        super().__init__(seed)
        self.annotation_file = annotation_file(root, split)
        self._training = split == "train"
        records = read_records(self.annotation_file, evaluated=not self._training)
        raise_problems(records.problems)
        self.category_ids = list(records.categories)
        if len(self.category_ids) != num_classes:
            found = f"{self.annotation_file} has {len(self.category_ids)} categories"
            raise InputError(f"{found}, not num_classes = {num_classes}.")
        self._folder = image_folder(root, split)
        pictures = map(_without_crowds, records.pictures) if self._training else records.pictures
        self._items = PackedList(p for p in pictures if p.instances or not self._training)
        self._side = image_size
        self._augmentation = augmentation

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Decode and transform image `index` and the masks of its instances."""
        picture = Picture(*self._items[index])
        height, width = picture.height, picture.width
        instances = [Instance(*values) for values in picture.instances]
        path = self._folder / picture.file_name
        image = open_image(path)
        if image.size != (width, height):
            raise InputError(size_message(path, image.size, (width, height)))
        frame, flip = self._draw(height, width)

        def view(value: T, fill: float | list[int] = 0) -> Tensor:
            framed = frame.apply(value, fill)
            return (F.horizontal_flip(framed) if flip else framed).as_subclass(Tensor)

        boxes = torch.tensor([instance.box for instance in instances], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = torch.zeros(len(instances), self._side, self._side, dtype=torch.uint8)
        for mask, instance in zip(masks, instances, strict=True):  # one by one: an image may be large
            whole = torch.from_numpy(decode_mask(instance.segmentation, height, width))
            mask[:] = view(tv_tensors.Mask(whole[None]))[0]
        target = {
            "boxes": view(tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))),  # type: ignore[call-overload]
            "masks": masks,
            "labels": torch.tensor([instance.label for instance in instances], dtype=torch.int64),
            "iscrowd": torch.tensor([instance.crowd for instance in instances], dtype=torch.int64),
        }
        target["area"] = target["masks"].sum((1, 2), dtype=torch.float32)
        if self._training:
            kept = _visible(target)
            target = {key: value[kept] for key, value in target.items()}
        target["image_id"] = torch.tensor(picture.id)
        target["original_size"] = torch.tensor([height, width])
        target["view_size"] = torch.tensor(frame.size)
        return normalized(view(tv_tensors.Image(image), FILL)), target

    def _draw(self, height: int, width: int) -> tuple[Frame, bool]:
        if self._augmentation is None:
            return fit(height, width, self._side), False
        low, high = self._augmentation.scale
        factor = float(torch.empty(()).uniform_(low, high))
        frame = random_frame(height, width, self._side, factor * self._side / max(height, width))
        return frame, bool(torch.rand(()) < self._augmentation.hflip)


def _without_crowds(picture: Picture) -> Picture:
    return picture._replace(instances=[instance for instance in picture.instances if not instance.crowd])


def _visible(target: Mapping[str, Tensor]) -> Tensor:
    """Return a mask of the instances in a view: boxes of at least a pixel each way, and part of the mask."""
    sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
    return (sides >= 1).all(1) & (target["area"] > 0)


def synthetic_batch(
    batch_size: int,
    *,
    num_classes: int,
    input: Mapping[str, Any],
    augmentation: DetectionAugmentation | None,
    device: torch.device,
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return random images (3, S, S), S = `image_size`, and targets of `BOXES` instances, a list of each."""
    side = input["image_size"]
    targets = [
        _squares(side, torch.randint(num_classes, (BOXES,), device=device) + 1, device)
        for _ in range(batch_size)
    ]
    return list(torch.randn(batch_size, 3, side, side, device=device)), targets


def _squares(side: int, labels: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Return a detector's target: squares a quarter of the image wide, along its diagonal."""
    width = side // 4
    starts = torch.linspace(0, side - width, BOXES, device=device).floor()
    boxes = torch.stack([starts, starts, starts + width, starts + width], dim=1)
    masks = torch.zeros(BOXES, side, side, dtype=torch.uint8, device=device)
    if device.type != "meta":
        for mask, start in zip(masks, starts.long().tolist(), strict=True):
            mask[start : start + width, start : start + width] = 1
    return {"boxes": boxes, "labels": labels, "masks": masks}


def annotation_file(root: Path, split: str) -> Path:
    """Return the path of a split's instances."""
    return root / "annotations" / f"instances_{split}2017.json"


def image_folder(root: Path, split: str) -> Path:
    """Return the path of a split's images."""
    return root / f"{split}2017"


def size_message(path: Path, size: tuple[int, int], recorded: tuple[int, int]) -> str:
    """Return the message for an image that differs in size from its record; sizes are (width, height)."""
    return (
        f"{path} is {size[0]}x{size[1]}, but its record says {recorded[0]}x{recorded[1]} "
        "(images are read as stored, without the rotation in their EXIF data)."
    )


def classes(root: Path) -> list[str]:
    """Return the names of the categories in the order of their ids."""
    return list(read_records(annotation_file(root, "val"), evaluated=False).categories.values())


def counts(root: Path) -> dict[str, int]:
    """Return the number of images of each split."""
    return {split: len(image_names(image_folder(root, split))) for split in SPLITS}


def files(root: Path) -> Iterator[Path]:
    """Yield both annotation files and every image."""
    for split in SPLITS:
        yield annotation_file(root, split)
        folder = image_folder(root, split)
        yield from (folder / name for name in image_names(folder))


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    """Return every problem of the folders, the annotation files and the images.

    The quick check reads all annotations and all image headers, but decodes only a sample of each split
    (`checks.QUICK_SAMPLE`).
    """
    problems, categories = [], {}
    for split in SPLITS:
        folder, listing = image_folder(root, split), annotation_file(root, split)
        if not folder.is_dir():
            problems.append(f"{folder} is missing.")
        problems += unread_files(folder)
        try:
            records = read_records(listing, evaluated=split == "val")
        except InputError as error:
            problems.append(str(error))
            continue
        problems += records.problems
        problems += [f"{listing}: {problem}" for problem in _class_problems(records, num_classes)]
        categories[listing] = records.categories
        if folder.is_dir():
            problems += _image_problems(folder, listing, records, training=split == "train", full=full)
    if len({tuple(named.items()) for named in categories.values()}) > 1:
        train, val = categories
        problems.append(
            f"{val}: the categories differ from those of {train}; give both the same ids and names."
        )
    return problems


def _class_problems(records: Records, num_classes: int) -> Iterator[str]:
    if len(records.categories) != num_classes:
        yield f"it has {len(records.categories)} categories, not num_classes = {num_classes}."
    instances = (instance for picture in records.pictures for instance in picture.instances)
    used = {instance.label for instance in instances if not instance.crowd}
    for label, (number, name) in enumerate(records.categories.items(), 1):
        if label not in used:
            yield f"category {name!r} is an empty class: no annotation has category_id {number}."


def _image_problems(
    folder: Path, listing: Path, records: Records, *, training: bool, full: bool
) -> Iterator[str]:
    """Yield where folder and annotation file disagree, and which images cannot be read."""
    recorded = {picture.file_name: (picture.width, picture.height) for picture in records.pictures}
    present = image_names(folder)
    yield from (f"{folder / name} has no record in {listing}." for name in present if name not in recorded)
    missing = sorted(recorded.keys() - set(present))
    yield from (f"{folder / name} is missing, but {listing} lists it." for name in missing)
    decoded = set(quick_sample(present, full=full))

    def problem(path: Path) -> str | None:
        try:
            size = image_size(path, decode=path.name in decoded)
        except InputError as error:
            return str(error)
        claimed = recorded.get(path.name, size)
        return None if size == claimed else size_message(path, size, claimed)

    paths = [folder / name for name in present]
    yield from check_files(paths, problem, what=folder.name, training=training)
