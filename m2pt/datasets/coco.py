"""COCO 2017: `annotations/instances_{train,val}2017.json` beside `train2017/` and `val2017/`."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from m2pt.datasets.augmentation import settings_of
from m2pt.datasets.framing import Frame, fit, normalized, random_frame
from m2pt.datasets.images import FILL, image_names, image_size, open_image, unreadable
from m2pt.datasets.packed import PackedList
from m2pt.datasets.seeded import SeededDataset
from m2pt.errors import InputError

SPLITS = ("train", "val")

T = TypeVar("T", bound=Tensor)


@dataclass(frozen=True)
class Augmentation:
    """Large-scale jitter: the image's longer side becomes `scale` times the view's, then a random crop.

    `hflip` is the probability of a flip.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    hflip: float = 0.5


class Reader(SeededDataset):
    """Images and their instances: `(float32 (3, S, S), target)`, S = `image_size`, ImageNet-normalised.

    The target is torchvision's for Mask R-CNN: `boxes` float32 (N, 4) x1 y1 x2 y2 in pixels of the view,
    `labels` int64 (N,) in 1..num_classes (ranks of the ids, which are in `category_ids`), `masks` uint8
    (N, S, S), `image_id` int64 (), `area` float32 (N,) pixels of the mask, `iscrowd` int64 (N,); and, to map
    back, `original_size` and `view_size` int64 (2,): height and width of the file and of its part of the
    view, whose rest is padding.

    `augmentation` has the optional keys of `Augmentation`. `None` shows the whole image, as large as it fits.
    Images without an instance are left out of "train", and so are crowds; "val" has all of both.

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
        augmentation: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(seed)
        self.annotation_file = annotation_file(root, split)
        instances = read_instances(self.annotation_file)
        self.category_ids = sorted(category["id"] for category in instances["categories"])
        if len(self.category_ids) != num_classes:
            found = f"{self.annotation_file} has {len(self.category_ids)} categories"
            raise InputError(f"{found}, not num_classes = {num_classes}.")
        self._folder = image_folder(root, split)
        self._training = split == "train"
        self._items = PackedList(_records(instances, self.category_ids, training=self._training))
        self._side = image_size
        self._augmentation = settings_of(Augmentation, augmentation)

    def __len__(self) -> int:
        return len(self._items)

    def load(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Decode image `index` and the masks of its instances and apply the view."""
        record = self._items[index]
        height, width, instances = record["height"], record["width"], record["instances"]
        image = open_image(self._folder / record["file_name"])
        if image.size != (width, height):
            path = self._folder / record["file_name"]
            raise InputError(
                f"{path} is {image.size[0]}x{image.size[1]}, but its record says {width}x{height}."
            )
        frame, flip = self._draw(height, width)

        def view(value: T, fill: float | list[int] = 0) -> Tensor:
            framed = frame.apply(value, fill)
            return (F.horizontal_flip(framed) if flip else framed).as_subclass(Tensor)

        boxes, masks = _boxes_and_masks(instances, height, width)
        target = {
            "boxes": view(boxes),
            "masks": view(masks),
            "labels": torch.tensor([instance["label"] for instance in instances], dtype=torch.int64),
            "iscrowd": torch.tensor([instance["iscrowd"] for instance in instances], dtype=torch.int64),
        }
        target["area"] = target["masks"].sum((1, 2), dtype=torch.float32)
        if self._training:
            kept = _visible(target)
            target = {key: value[kept] for key, value in target.items()}
        target["image_id"] = torch.tensor(record["id"])
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


def _records(
    instances: Mapping[str, Any], category_ids: list[int], *, training: bool
) -> Iterator[dict[str, Any]]:
    """Yield each image with what the reader needs of its annotations, in the order of the image ids."""
    label_of = {category: label for label, category in enumerate(category_ids, 1)}
    of_image = defaultdict(list)
    for annotation in instances["annotations"]:
        crowd = annotation.get("iscrowd", 0)
        if not (training and crowd):
            of_image[annotation["image_id"]].append(
                {
                    "label": label_of[annotation["category_id"]],
                    "bbox": annotation["bbox"],
                    "segmentation": annotation["segmentation"],
                    "iscrowd": crowd,
                }
            )
    for image in sorted(instances["images"], key=lambda image: image["id"]):
        if of_image[image["id"]] or not training:
            kept = {key: image[key] for key in ("id", "file_name", "height", "width")}
            yield {**kept, "instances": of_image[image["id"]]}


def _boxes_and_masks(
    instances: list[dict[str, Any]], height: int, width: int
) -> tuple[tv_tensors.BoundingBoxes, tv_tensors.Mask]:
    boxes = torch.tensor([instance["bbox"] for instance in instances], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = np.zeros((len(instances), height, width), np.uint8)
    for mask, instance in zip(masks, instances, strict=True):
        mask[:] = decode_mask(instance["segmentation"], height, width)
    return (
        tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),  # type: ignore[call-overload]
        tv_tensors.Mask(torch.from_numpy(masks)),
    )


def _visible(target: Mapping[str, Tensor]) -> Tensor:
    """Tell which instances a view still shows: a box of a pixel or more each way, and part of the mask."""
    sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
    return (sides >= 1).all(1) & (target["area"] > 0)


def decode_mask(segmentation: Any, height: int, width: int) -> NDArray[np.uint8]:
    """Return the (height, width) mask, 1 inside, of polygons or a run-length code, compressed or not."""
    if isinstance(segmentation, list):
        code = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        code = rle.frPyObjects(segmentation, height, width)
    else:
        code = segmentation
    return rle.decode(code)  # type: ignore[no-any-return]


def annotation_file(root: Path, split: str) -> Path:
    """Return the path of a split's instances."""
    return root / "annotations" / f"instances_{split}2017.json"


def image_folder(root: Path, split: str) -> Path:
    """Return the path of a split's images."""
    return root / f"{split}2017"


def read_instances(path: Path) -> dict[str, Any]:
    """Return a parsed annotation file.

    Raises:
        InputError: the file is missing, is not JSON, or one of its three lists is missing or odd.
    """
    try:
        instances = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(instances, dict) or not isinstance(instances.get(key), list):
            raise InputError(f"{path} lacks the list {key!r}: it is not a COCO instances file.")
        odd = [number for number, entry in enumerate(instances[key]) if not isinstance(entry, dict)]
        if odd:
            raise InputError(f"{path}: entry {odd[0]} of {key!r} is no mapping of keys to values.")
    return instances


def classes(root: Path) -> list[str]:
    """Return the names of the categories in the order of their ids."""
    categories = read_instances(annotation_file(root, "val"))["categories"]
    return [category["name"] for category in sorted(categories, key=lambda category: category["id"])]


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
    """Return every fault of the folders, the annotation files and, if `full`, the pixels of the images."""
    faults = []
    for split in SPLITS:
        folder, listing = image_folder(root, split), annotation_file(root, split)
        if not folder.is_dir():
            faults.append(f"{folder} is missing.")
        elif full:
            faults += unreadable([folder / name for name in image_names(folder)], what=folder.name)
        try:
            instances = read_instances(listing)
        except InputError as error:
            faults.append(str(error))
            continue
        faults += [f"{listing}: {fault}" for fault in _inconsistencies(instances, num_classes)]
        if folder.is_dir():
            faults += _file_faults(folder, listing, instances, full=full)
    return faults


def _file_faults(folder: Path, listing: Path, instances: Mapping[str, Any], *, full: bool) -> Iterator[str]:
    """Yield where folder and annotation file disagree: which images there are and, if `full`, how large."""
    recorded = {str(image.get("file_name")): image for image in instances["images"]}
    present = set(image_names(folder))
    yield from (f"{folder / name} has no record in {listing}." for name in sorted(present - recorded.keys()))
    yield from (
        f"{folder / name} is missing: {listing} lists it." for name in sorted(recorded.keys() - present)
    )
    for name in sorted(recorded.keys() & present) if full else ():
        size, claimed = image_size(folder / name), (recorded[name].get("width"), recorded[name].get("height"))
        if size not in (None, claimed):
            yield f"{folder / name} is (width, height) = {size}, but its record in {listing} says {claimed}."


def _inconsistencies(instances: Mapping[str, Any], num_classes: int) -> Iterator[str]:
    """Yield what is wrong within one annotation file, without looking at images."""
    images = {image.get("id"): image for image in instances["images"]}
    names = {category.get("id"): category.get("name") for category in instances["categories"]}
    if len(names) != num_classes:
        yield f"it has {len(names)} categories, not {num_classes}."
    for what, unique in (("images", images), ("categories", names)):
        if len(unique) != len(instances[what]):
            yield f"two of its {what} have the same id, or one has none."
    used = set()
    for annotation in instances["annotations"]:
        used.add(annotation.get("category_id"))
        yield from (
            f"annotation {annotation.get('id')} {fault}."
            for fault in _annotation_faults(annotation, images, names)
        )
    yield from (
        f"category {names[category]!r} is an empty class: no annotation has id {category}."
        for category in names
        if category not in used
    )


def _annotation_faults(
    annotation: Mapping[str, Any], images: Mapping[Any, Any], names: Mapping[Any, Any]
) -> Iterator[str]:
    if annotation.get("category_id") not in names:
        yield f"has category_id {annotation.get('category_id')}, which is no category"
    image = images.get(annotation.get("image_id"))
    if image is None:
        yield f"is of image {annotation.get('image_id')}, which is not listed"
    box = annotation.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)):
        yield f"has the bbox {box}, which is not [x, y, width, height]"
    shape = annotation.get("segmentation")
    if isinstance(shape, list):
        if not shape or any(len(polygon) < 6 or len(polygon) % 2 for polygon in shape):
            yield "has a polygon that is not three or more pairs of x and y"
    elif not isinstance(shape, dict) or not {"size", "counts"} <= shape.keys():
        yield "has a segmentation that is neither polygons nor a run-length code"
    elif image is not None and shape["size"] != [image.get("height"), image.get("width")]:
        yield f"has a mask of {shape['size']} for an image of {[image.get('height'), image.get('width')]}"
