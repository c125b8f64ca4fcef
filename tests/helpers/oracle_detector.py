"""A COCO annotation file of four objects, a reader of its images, and a detector that finds all of them."""

import json
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor, nn
from torch.utils.data import Dataset

CATEGORIES = [7, 90]
WIDTH, HEIGHT = 80, 40
# image id, category id, box x y w h
OBJECTS = [
    (11, 7, (4, 4, 16, 16)),
    (11, 90, (40, 8, 24, 24)),
    (12, 7, (8, 12, 16, 16)),
    (13, 90, (0, 0, 32, 16)),
]


def run_length(x: int, y: int, w: int, h: int) -> dict[str, object]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    code = rle.encode(mask)
    return {"size": code["size"], "counts": code["counts"].decode()}


def write_annotations(folder: Path) -> Path:
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": 0,
            "segmentation": run_length(*box),
        }
        for number, (image, category, box) in enumerate(OBJECTS, 1)
    ]
    images = [
        {"id": image, "width": WIDTH, "height": HEIGHT, "file_name": f"{image}.jpg"} for image in (11, 12, 13)
    ]
    categories = [{"id": category, "name": str(category)} for category in CATEGORIES]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


class Views(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """The images above in a view of half their size, padded to 40 x 40."""

    category_ids = CATEGORIES

    def __init__(self, annotation_file: Path) -> None:
        self.annotation_file = annotation_file

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        sizes = {
            "original_size": torch.tensor([HEIGHT, WIDTH]),
            "view_size": torch.tensor([HEIGHT // 2, WIDTH // 2]),
        }
        image = torch.full((3, 40, 40), float(11 + index))
        return image, {"image_id": torch.tensor(11 + index), **sizes}


class Oracle(nn.Module):
    """Finds every object of the image whose id its pixels have, in the view's coordinates."""

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        predictions = []
        for image in images:
            found = [(category, box) for i, category, box in OBJECTS if i == int(image.mean())]
            boxes = [(x / 2, y / 2, (x + w) / 2, (y + h) / 2) for _, (x, y, w, h) in found]
            predictions.append(
                {
                    "boxes": torch.tensor(boxes),
                    "labels": torch.tensor([1 + CATEGORIES.index(category) for category, _ in found]),
                    "scores": torch.ones(len(found)),
                    "masks": torch.ones(len(found), 1, 28, 28),
                }
            )
        return predictions
