"""The COCO reader against pycocotools, and the geometry of its views."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from m2pt.datasets.augmentations import DetectionAugmentation
from m2pt.datasets.coco import Reader, annotation_file, classes, counts
from m2pt.datasets.miniature.coco import CATEGORY_IDS
from m2pt.errors import InputError

JITTER = DetectionAugmentation(scale=(0.5, 2.0), hflip=0.5)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of 60 x 40 pixels: number 9 has a polygon, a code and a crowd, number 4 has nothing."""
    root = tmp_path_factory.mktemp("coco")
    block = np.zeros((40, 60), np.uint8, order="F")
    block[6:16, 30:50] = 1
    crowd = {"size": [40, 60], "counts": [40 * 50, 40 * 10]}
    code = rle.encode(block)
    annotations = [
        {
            "category_id": 7,
            "bbox": [10, 20, 20, 10],
            "segmentation": [[10, 20, 30, 20, 30, 30, 10, 30]],
            "iscrowd": 0,
        },
        {
            "category_id": 3,
            "bbox": [30, 6, 20, 10],
            "segmentation": {"size": [40, 60], "counts": code["counts"].decode()},
            "iscrowd": 0,
        },
        {"category_id": 7, "bbox": [50, 0, 10, 40], "segmentation": crowd, "iscrowd": 1},
    ]
    pixels = np.full((40, 60, 3), 30, np.uint8)
    pixels[block > 0] = 250
    pixels[20:30, 10:30] = 250
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir()
        for name in ("a.jpg", "b.jpg"):
            Image.fromarray(pixels).save(root / f"{split}2017" / name, quality=95)
        instances = {
            "images": [
                {"id": 9, "file_name": "a.jpg", "height": 40, "width": 60},
                {"id": 4, "file_name": "b.jpg", "height": 40, "width": 60},
            ],
            "annotations": [{"id": i, "image_id": 9, **entry} for i, entry in enumerate(annotations)],
            "categories": [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}],
        }
        annotation_file(root, split).write_text(json.dumps(instances))
    return root


def test_targets_are_those_of_pycocotools(coco: Path) -> None:
    reader = Reader(coco, "val", num_classes=10, image_size=96)
    truth = COCO(str(reader.annotation_file))
    kinds = set()
    assert len(reader) == 50
    for index in range(len(reader)):
        _, target = reader[index]
        annotations = truth.loadAnns(truth.getAnnIds([int(target["image_id"])]))
        kinds |= {type(annotation["segmentation"]) for annotation in annotations}
        masks = np.array([truth.annToMask(annotation) for annotation in annotations], np.uint8)
        boxes = np.array([annotation["bbox"] for annotation in annotations], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        assert target["masks"].numpy().tolist() == masks.reshape(-1, 96, 96).tolist()
        np.testing.assert_allclose(target["boxes"].numpy(), boxes, atol=1e-4)
        assert target["area"].tolist() == [annotation["area"] for annotation in annotations]
        categories = [CATEGORY_IDS[label - 1] for label in target["labels"].tolist()]
        assert categories == [annotation["category_id"] for annotation in annotations]
    assert kinds == {list, dict}


def test_masks_lie_on_the_digits_in_every_view(coco: Path) -> None:
    for augmentation in (None, DetectionAugmentation(hflip=1.0), JITTER):
        reader = Reader(coco, "train", num_classes=10, image_size=96, augmentation=augmentation)
        for index in range(20):
            image, target = reader[index]
            for mask, (x1, y1, x2, y2) in zip(target["masks"].bool(), target["boxes"].tolist(), strict=True):
                rows, columns = mask.nonzero().T
                assert image.mean(0)[mask].mean() > 1.0  # white ink; the dimmed photographs are darker
                assert x1 - 1 <= columns.min() and columns.max() <= x2 + 1
                assert y1 - 1 <= rows.min() and rows.max() <= y2 + 1


def test_a_flip_is_a_flip(coco: Path) -> None:
    readers = [
        Reader(coco, "train", num_classes=10, image_size=96, augmentation=DetectionAugmentation(hflip=p))
        for p in (0.0, 1.0)
    ]
    (image, target), (mirrored, other) = (reader[3] for reader in readers)
    torch.testing.assert_close(mirrored, image.flip(2))
    assert torch.equal(other["masks"], target["masks"].flip(2))
    torch.testing.assert_close(
        other["boxes"],
        (96 - target["boxes"])[:, [2, 1, 0, 3]] * torch.tensor([1, -1, 1, -1]) + torch.tensor([0, 96, 0, 96]),
    )


def test_evaluation_keeps_crowds_empty_images_and_the_way_back(small: Path) -> None:
    reader = Reader(small, "val", num_classes=2, image_size=30)
    assert reader.category_ids == [3, 7]
    assert classes(small) == ["three", "seven"]
    assert counts(small) == {"train": 2, "val": 2}
    (_, empty), (image, target) = reader[0], reader[1]
    assert (int(empty["image_id"]), int(target["image_id"])) == (4, 9)
    assert empty["boxes"].shape == (0, 4)
    assert empty["masks"].shape == (0, 30, 30)
    assert target["labels"].tolist() == [2, 1, 2]
    assert target["iscrowd"].tolist() == [0, 0, 1]
    assert target["original_size"].tolist() == [40, 60]
    assert target["view_size"].tolist() == [20, 30]
    assert image.shape == (3, 30, 30)
    assert image[:, 20:].abs().max() < 0.01  # padding is the mean color
    torch.testing.assert_close(target["boxes"][0] * 2, torch.tensor([10.0, 20, 30, 30]))
    assert target["masks"][1].nonzero().min(0).values.tolist() == [3, 15]
    assert target["masks"][2].sum() == 20 * 5


def test_training_leaves_out_crowds_and_empty_images(small: Path) -> None:
    reader = Reader(small, "train", num_classes=2, image_size=30, augmentation=JITTER)
    assert len(reader) == 1
    for epoch in range(30):
        image, target = reader[(epoch, 0)]
        assert image.shape == (3, 30, 30)
        assert set(target["labels"].tolist()) <= {1, 2}
        sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
        assert (sides >= 1).all()
        assert target["masks"].flatten(1).any(1).all()


def test_a_sample_depends_on_seed_epoch_and_index_alone(coco: Path) -> None:
    def read(epoch: int, workers: int) -> list:
        reader = Reader(coco, "train", num_classes=10, image_size=64, augmentation=JITTER)
        keys = [(epoch, index) for index in range(6)]
        return list(DataLoader(reader, None, sampler=keys, num_workers=workers))

    alone = read(1, 0)
    for (image, target), (same, other) in zip(alone, read(1, 2), strict=True):
        assert torch.equal(image, same)
        assert all(torch.equal(target[key], other[key]) for key in target)
    assert not torch.equal(read(2, 0)[0][0], alone[0][0])


def test_what_does_not_fit_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 categories, not num_classes = 80"):
        Reader(small, "val", num_classes=80, image_size=30)
    with pytest.raises(InputError, match=r"instances_val2017\.json"):
        Reader(tmp_path, "val", num_classes=80, image_size=30)
    root = tmp_path / "copy"
    shutil.copytree(small, root)
    Image.new("RGB", (8, 8)).save(root / "val2017" / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg is 8x8, but its record says 60x40"):
        Reader(root, "val", num_classes=2, image_size=30)[1]
