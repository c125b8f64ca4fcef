"""The ADE20K reader against NumPy, and the geometry of its views."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from m2pt.datasets.ade20k import Reader, classes, counts, largest_share
from m2pt.datasets.augmentations import SegmentationAugmentation
from m2pt.datasets.framing import random_frame
from m2pt.errors import InputError

TRAINING = SegmentationAugmentation(scale=(0.5, 2.0), cat_max_ratio=0.75, color_jitter=1.0)


def write_pair(root: Path, image: np.ndarray, labels: Image.Image) -> Path:
    for kind in ("images", "annotations"):
        (root / kind / "validation").mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / "images/validation/a.png")
    labels.save(root / "annotations/validation/a.png")
    return root


def test_labels_are_shifted_and_zero_is_ignored(ade20k: Path) -> None:
    reader = Reader(ade20k, "val", num_classes=11, image_size=96)
    files = sorted((ade20k / "annotations/validation").iterdir())
    seen = set()
    assert counts(ade20k) == {"train": 24, "val": len(files)}
    assert classes(ade20k)[:2] == ["background", "digit 0"]
    for index, file in enumerate(files):
        stored = np.asarray(Image.open(file)).astype(int)
        image, labels = reader[index]
        assert labels.dtype == torch.int64
        assert labels.tolist() == np.where(stored == 0, 255, stored - 1).tolist()
        pixels = np.asarray(Image.open(ade20k / "images/validation" / f"{file.stem}.jpg"), np.float32) / 255
        expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        torch.testing.assert_close(image, torch.from_numpy(expected).permute(2, 0, 1).float())
        seen |= set(np.unique(labels))
    assert seen == {*range(11), 255}


def test_evaluation_resizes_the_image_and_keeps_the_labels(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (40, 60), dtype=np.uint8)
    palette = Image.fromarray(labels, "P")
    palette.putpalette([255, 0, 0] * 256)  # a palette's colors are not labels
    root = write_pair(tmp_path, np.zeros((40, 60, 3), np.uint8), palette)
    image, target = Reader(root, "val", num_classes=3, image_size=20)[0]
    assert image.shape == (3, 20, 30)
    assert target.tolist() == np.where(labels == 0, 255, labels.astype(int) - 1).tolist()


def test_digits_and_labels_move_together(ade20k: Path) -> None:
    for augmentation in (SegmentationAugmentation(hflip=1.0), SegmentationAugmentation(scale=(0.5, 2.0))):
        reader = Reader(ade20k, "train", num_classes=11, image_size=96, augmentation=augmentation)
        for index in range(12):
            image, labels = reader[index]
            assert image.shape[1:] == labels.shape == (96, 96)
            digits = (labels > 0) & (labels < 255)
            if digits.any():
                assert image.mean(0)[digits].mean() > 1.0  # white ink; the dimmed photographs are darker


def test_padding_is_ignored(ade20k: Path) -> None:
    reader = Reader(
        ade20k,
        "train",
        num_classes=11,
        image_size=96,
        augmentation=SegmentationAugmentation(scale=(0.5, 0.5)),
    )
    image, labels = reader[0]
    assert (labels[48:] == 255).all() and (labels[:, 48:] == 255).all()
    assert image[:, 48:].abs().max() < 0.01
    assert (labels[:48, :48] != 255).any()


def test_no_class_covers_more_of_a_crop_than_asked(tmp_path: Path) -> None:
    labels = np.ones((32, 128), np.uint8)
    labels[:, 60:68] = 2
    root = write_pair(tmp_path, np.zeros((32, 128, 3), np.uint8), Image.fromarray(labels))

    def shares(limit: float) -> np.ndarray:
        reader = Reader(
            root,
            "val",
            num_classes=2,
            image_size=32,
            augmentation=SegmentationAugmentation(cat_max_ratio=limit),
        )
        views = [reader[(epoch, 0)][1] for epoch in range(60)]
        return np.array([max((view == label).float().mean().item() for label in (0, 1)) for view in views])

    assert (shares(0.9) <= 0.9).mean() > 2 * (shares(1.0) <= 0.9).mean()


def test_largest_share_leaves_out_ignored_pixels() -> None:
    labels = np.array([[0, 0, 0, 1], [255, 255, 255, 255]], np.uint8)
    assert largest_share(random_frame(2, 4, 4, 1.0), labels) == 0.75
    assert largest_share(random_frame(2, 4, 4, 1.0), np.full((2, 4), 255, np.uint8)) == 1.0


def test_a_sample_depends_on_seed_epoch_and_index_alone(ade20k: Path) -> None:
    def read(epoch: int, workers: int) -> list[torch.Tensor]:
        reader = Reader(ade20k, "train", num_classes=11, image_size=64, augmentation=TRAINING)
        keys = [(epoch, index) for index in range(6)]
        batches = list(DataLoader(reader, 3, sampler=keys, num_workers=workers))
        return [torch.cat(parts) for parts in zip(*batches, strict=True)]

    alone = read(1, 0)
    assert all(torch.equal(one, other) for one, other in zip(alone, read(1, 2), strict=True))
    assert not torch.equal(read(2, 0)[0], alone[0])


def test_what_does_not_fit_is_refused(ade20k: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no image"):
        Reader(tmp_path, "val", num_classes=11, image_size=96)
    reader = Reader(ade20k, "val", num_classes=5, image_size=96)
    with pytest.raises(InputError, match="but num_classes is 5"):
        [reader[index] for index in range(len(reader))]
    root = tmp_path / "copy"
    shutil.copytree(ade20k, root)
    first = sorted((root / "annotations/validation").iterdir())[0]
    Image.new("L", (8, 8)).save(first)
    with pytest.raises(InputError, match=f"{first.name} is 8x8, but its image is 96x96"):
        Reader(root, "val", num_classes=11, image_size=96)[0]
    Image.new("RGB", (96, 96)).save(first)
    with pytest.raises(InputError, match="not with 8 bits"):
        Reader(root, "val", num_classes=11, image_size=96)[0]
