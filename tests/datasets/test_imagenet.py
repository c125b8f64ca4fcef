"""The ImageNet reader against Pillow and NumPy, and its determinism."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from m2pt.datasets.augmentations import ImageAugmentation
from m2pt.datasets.imagenet import Reader, classes, counts, files
from m2pt.errors import InputError

TRAINING = ImageAugmentation(scale=(0.5, 1.0), auto_augment="rand-m9-mstd0.5-inc1", reprob=0.5)


def test_labels_are_the_ranks_of_the_sorted_folders(imagenet: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(imagenet, root)
    wnids = sorted(path.name for path in (root / "train").iterdir())
    some = next((root / "val" / wnids[7]).iterdir())
    Image.open(some).save(root / "val" / wnids[7] / "zz.PNG")
    (root / "val" / wnids[7] / "notes.txt").write_text("no image")
    reader = Reader(root, "val", num_classes=10, image_size=32)
    labels = [reader[index][1] for index in range(len(reader))]
    assert labels == sorted([*range(10), *range(10), 7])
    assert classes(root) == wnids
    assert counts(root) == {"train": 60, "val": 21}
    assert len(list(files(root))) == 81


def test_evaluation_resizes_by_256_224_and_crops_the_center(imagenet: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(imagenet, root)
    wnid = classes(root)[0]
    noise = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "val" / wnid / "0.png")
    view, label = Reader(root, "val", num_classes=10, image_size=28)[0]
    resized = np.asarray(Image.fromarray(noise).resize((32, 42), Image.Resampling.BICUBIC), np.float32) / 255
    cropped = (resized[7:35, 2:30] - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert label == 0
    torch.testing.assert_close(view, torch.from_numpy(cropped).permute(2, 0, 1).float())


@pytest.mark.parametrize(
    "augmentation", [TRAINING, ImageAugmentation(color_jitter=0.4), ImageAugmentation(), None]
)
def test_samples_have_the_promised_form(imagenet: Path, augmentation: ImageAugmentation | None) -> None:
    view, label = Reader(imagenet, "train", num_classes=10, image_size=32, augmentation=augmentation)[5]
    assert view.shape == (3, 32, 32)
    assert view.dtype == torch.float32
    assert view.isfinite().all()
    assert type(label) is int


def test_a_sample_depends_on_seed_epoch_and_index_alone(imagenet: Path) -> None:
    def read(seed: int, epoch: int, workers: int) -> torch.Tensor:
        reader = Reader(imagenet, "train", num_classes=10, image_size=32, seed=seed, augmentation=TRAINING)
        keys = [(epoch, index) for index in range(12)]
        return torch.cat([images for images, _ in DataLoader(reader, 3, sampler=keys, num_workers=workers)])

    alone = read(0, 1, 0)
    torch.testing.assert_close(read(0, 1, 2), alone, rtol=0, atol=0)
    assert not torch.equal(read(0, 2, 0), alone)
    assert not torch.equal(read(1, 1, 0), alone)


def test_what_does_not_fit_is_refused(imagenet: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="10 class folders, not num_classes = 1000"):
        Reader(imagenet, "train", num_classes=1000, image_size=32)
    root = tmp_path / "copy"
    shutil.copytree(imagenet, root)
    broken = next(root.glob("train/*/*.JPEG"))
    broken.write_bytes(broken.read_bytes()[:300])
    reader = Reader(root, "train", num_classes=10, image_size=32)
    with pytest.raises(InputError, match=broken.name):
        [reader[index] for index in range(len(reader))]
    shutil.rmtree(root / "val")
    with pytest.raises(InputError, match="val has no image"):
        Reader(root, "val", num_classes=10, image_size=32)
