"""The PartNet reader: shapes across files, sampling, unlabeled points, every problem; its miniature."""

import json
import os
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from rebuilt import assert_seed_decides_bytes
from torch.utils.data import DataLoader

from m2pt.datasets import partnet
from m2pt.datasets.augmentations import ShapeAugmentation
from m2pt.datasets.miniature import partnet as miniature
from m2pt.datasets.miniature.staging import RECORD
from m2pt.datasets.partnet import OpenFiles, Reader
from m2pt.errors import InputError

CLASSES = {"Bag-1": 4}


def write(path: Path, **arrays: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def arrays(count: int, seed: int, points: int = 60) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "data": draw.normal(1, 2, (count, points, 3)).astype(np.float32),
        "data_num": np.full(count, points, np.int32),
        "label_seg": draw.integers(0, 4, (count, points), dtype=np.uint8),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sem_seg_h5/Bag-1"
    folder.mkdir(parents=True)
    for seed, (name, count) in enumerate({"train-00": 3, "train-01": 2, "test-00": 2}.items()):
        write(folder / f"{name}.h5", **arrays(count, seed))
    (folder / "train_files.txt").write_text("train-00.h5\n./train-01.h5\n")
    (folder / "test_files.txt").write_text("test-00.h5\n")
    return folder


@pytest.fixture
def root(folder: Path) -> Path:
    return folder.parents[1]


def reader(root: Path, split: str = "train", **changes: object) -> Reader:
    return Reader(root, split, **{"subset": "Bag-1", "num_classes": 4, "points": 60, **changes})


def normalized(cloud: np.ndarray) -> np.ndarray:
    centered = cloud.astype(np.float64) - cloud.mean(axis=0, dtype=np.float64)
    return centered / np.linalg.norm(centered, axis=1).max()


def test_evaluation_takes_every_point_in_its_order_from_all_files(root: Path) -> None:
    stored = [(arrays(3, 0), row) for row in range(3)] + [(arrays(2, 1), row) for row in range(2)]
    items = reader(root)
    assert len(items) == 5 and len(reader(root, "val")) == 2
    for index, (file, row) in enumerate(stored):
        points, labels = items[index]
        assert points.dtype == torch.float32 and labels.dtype == torch.int64
        np.testing.assert_allclose(points, normalized(file["data"][row]), atol=1e-6)
        assert np.array_equal(labels, file["label_seg"][row])
    fewer, labels = reader(root, points=20)[4]
    every_third = np.arange(0, 60, 3)
    np.testing.assert_allclose(fewer, normalized(stored[4][0]["data"][1][every_third]), atol=1e-6)
    assert np.array_equal(labels, stored[4][0]["label_seg"][1][every_third])


def test_only_the_points_that_count_are_read(folder: Path, root: Path) -> None:
    content = arrays(2, 5)
    content["data_num"][:] = 40
    content["data"][:, 40:] = 1e6
    content["label_seg"][:, 40:] = 99
    write(folder / "test-00.h5", **content)
    points, labels = reader(root, "val", points=40)[1]
    np.testing.assert_allclose(points, normalized(content["data"][1, :40]), atol=1e-6)
    assert np.array_equal(labels, content["label_seg"][1, :40])


def test_training_draws_points_without_repetition_and_labels_follow(root: Path) -> None:
    file = arrays(3, 0)
    views = reader(root, augmentation=ShapeAugmentation(scale=(1, 1), translate=0))
    points, labels = views[(1, 2)]
    among = normalized(file["data"][2])
    distance = np.linalg.norm(points.numpy()[:, None] - among, axis=2)
    drawn = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 1e-5 and sorted(drawn) == list(range(60))
    assert np.array_equal(labels, file["label_seg"][2][drawn])
    assert not torch.equal(points, views[(2, 2)][0]) and torch.equal(points, views[(1, 2)][0])


def test_workers_open_files_of_their_own(root: Path) -> None:
    keys = [(0, 4), (2, 0), (2, 3), (1, 1)]
    views = reader(root, points=30, augmentation=ShapeAugmentation(translate=0))
    alone = [views[key] for key in keys]
    loader = DataLoader(views, sampler=keys, batch_size=None, num_workers=2)
    for (points, labels), expected in zip(loader, alone, strict=True):
        assert torch.equal(points, expected[0]) and torch.equal(labels, expected[1])


def test_an_open_file_is_kept_within_a_process_and_never_beyond_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = OpenFiles([folder / "train-00.h5", folder / "train-01.h5"])
    first = files[1]
    assert files[1] is first
    # a data loader pickles datasets for the workers that it spawns; these bytes are our own
    assert pickle.loads(pickle.dumps(files))[1] is not first  # our own bytes
    monkeypatch.setattr(os, "getpid", lambda: -1)
    other = files[1]
    assert other is not first and files[1] is other


def test_a_sound_dataset_has_no_problems_and_is_described(folder: Path, root: Path) -> None:
    assert partnet.check(root, num_classes=CLASSES, full=True) == []
    assert partnet.check(root, num_classes=4, full=True) == []
    assert partnet.classes(root) == ["Bag-1"]
    assert partnet.counts(root) == {"train": 5, "val": 2}
    assert {path for path in root.rglob("*") if path.is_file()} == set(partnet.files(root))
    (folder / "val_files.txt").write_text("train-01.h5\n")
    assert folder / "val_files.txt" in set(partnet.files(root))
    (folder / "val_files.txt").write_text("val-00.h5\n")
    (problem,) = partnet.check(root, num_classes=CLASSES, full=False)
    assert "val-00.h5 is missing, but" in problem


def replaced(folder: Path, **changes: np.ndarray | None) -> None:
    content = {**arrays(2, 0), **changes}
    write(folder / "test-00.h5", **{name: array for name, array in content.items() if array is not None})


def cut(folder: Path, size: int) -> None:
    path = folder / "test-00.h5"
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.rename(f.with_name("Bed-1")), "Bag-1 is missing; the subsets present are Bed-1"),
        (lambda f: f.parent.rename(f.parents[1] / "elsewhere"), "sem_seg_h5 has no folder"),
        (lambda f: (f / "train_files.txt").unlink(), "train_files.txt: cannot be read"),
        (lambda f: (f / "test_files.txt").write_text(""), "test_files.txt is empty"),
        (
            lambda f: (f / "test_files.txt").write_text("a.npz\n"),
            "line 1 must be the name of an HDF5 file beside the list, got 'a.npz'",
        ),
        (lambda f: (f / "test_files.txt").write_text("../a.h5\n"), "list, got '../a.h5'"),
        (lambda f: (f / "train-01.h5").unlink(), "train-01.h5 is missing, but"),
        (lambda f: replaced(f, data_num=None), "test-00.h5 has no array 'data_num'"),
        (
            lambda f: replaced(f, data=np.zeros((2, 60, 6), np.float32)),
            "got shapes {'data': (2, 60, 6)",
        ),
        (
            lambda f: replaced(f, label_seg=np.zeros((2, 59), np.int32)),
            "'label_seg': (2, 59)}",
        ),
        (lambda f: replaced(f, data_num=np.zeros(3, np.int32)), "'data_num': (3,)"),
        (
            lambda f: replaced(f, data=np.zeros((2, 60, 3), np.int32)),
            "must have floats in data and integers in",
        ),
        (
            lambda f: replaced(f, label_seg=np.zeros((2, 60), np.float32)),
            "must have floats in data and integers",
        ),
        (lambda f: cut(f, 3000), "test-00.h5 cannot be read as HDF5"),
        (lambda f: cut(f, 0), "test-00.h5 cannot be read as HDF5"),
    ],
)
def test_every_problem_is_named_by_the_quick_form(folder: Path, root: Path, damage, message: str) -> None:
    damage(folder)
    problems = partnet.check(root, num_classes=CLASSES, full=False)
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"label_seg": np.full((2, 60), 4)},
            "shape 0 has classes 4 to 4, but num_classes = 4 allows 0 to 3",
        ),
        ({"label_seg": np.full((2, 60), -1)}, "test-00.h5 shape 0 has classes -1 to -1"),
        ({"data": np.full((2, 60, 3), np.nan, np.float32)}, "coordinates that are infinite or NaN"),
        ({"data": np.full((2, 60, 3), np.inf, np.float32)}, "coordinates that are infinite or NaN"),
        (
            {"data_num": np.array([60, 0])},
            "shape 1: data_num must be 1 to the 60 stored points, got 0",
        ),
        (
            {"data_num": np.array([-1, 60])},
            "test-00.h5 shape 0: data_num must be 1 to the 60 stored points, got -1",
        ),
        (
            {"data_num": np.array([60, 61])},
            "shape 1: data_num must be 1 to the 60 stored points, got 61",
        ),
    ],
)
def test_the_full_form_reads_the_arrays(folder: Path, root: Path, changes, message: str) -> None:
    replaced(folder, **changes)
    assert partnet.check(root, num_classes=CLASSES, full=False) == []
    (problem,) = partnet.check(root, num_classes=CLASSES, full=True)
    assert message in problem


def test_points_that_do_not_count_are_not_checked(folder: Path, root: Path) -> None:
    content = arrays(2, 5)
    content["data_num"][:] = 40
    content["data"][:, 40:] = np.nan
    content["label_seg"][:, 40:] = 99
    write(folder / "test-00.h5", **content)
    assert partnet.check(root, num_classes=CLASSES, full=True) == []
    content["label_seg"][1, 39] = 99
    write(folder / "test-00.h5", **content)
    (problem,) = partnet.check(root, num_classes=CLASSES, full=True)
    assert "test-00.h5 shape 1 has classes 0 to 99, but num_classes = 4" in problem


def test_too_few_points_are_refused_before_a_training(folder: Path, root: Path) -> None:
    replaced(folder, data_num=np.array([60, 59]))
    with pytest.raises(InputError, match=r"test-00\.h5 shape 1 has 59 points, fewer than points = 60"):
        reader(root, "val")
    assert len(reader(root, "val", points=59)) == 2
    replaced(folder, data_num=np.array([60, 61]))
    with pytest.raises(InputError, match="shape 1: data_num must be 1 to the 60 stored points, got 61"):
        reader(root, "val", points=10)


def test_the_reader_refuses_what_it_cannot_read(folder: Path, root: Path) -> None:
    with pytest.raises(InputError, match=r"Bed-1/train_files.txt: cannot be read"):
        reader(root, subset="Bed-1")
    with pytest.raises(InputError, match="shape 0 has 60 points, fewer than points = 61"):
        reader(root, points=61)
    with pytest.raises(InputError, match=r"train-00\.h5 shape 0 has classes 0 to 3, but num_classes = 3"):
        reader(root, num_classes=3)[0]
    cut(folder, 3000)
    with pytest.raises(InputError, match=r"test-00\.h5 cannot be read as HDF5"):
        reader(root, "val")


SIZES = {"train": 12, "val": 8, "points": 200, "unlabelled": 0.1}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("subsets") / "partnet"
    miniature.build(root, seed=1, **SIZES)
    return root


def test_a_miniature_is_sound_and_the_same_bytes_for_the_same_seed(small: Path, tmp_path: Path) -> None:
    assert partnet.check(small, num_classes={"Chair-1": 5, "Lamp-1": 5}, full=True) == []
    assert partnet.counts(small) == {"train": 24, "val": 16}
    assert {*partnet.files(small), small / RECORD} == {path for path in small.rglob("*") if path.is_file()}
    assert_seed_decides_bytes(partial(miniature.build, **SIZES), small, tmp_path, seed=1)


def samples(root: Path, split: str, subset: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    items = Reader(root, split, subset=subset, num_classes=5, points=200)
    return (items[index] for index in range(len(items)))


@pytest.mark.parametrize("subset", ["Chair-1", "Lamp-1"])
def test_a_miniatures_shapes_have_all_classes_and_a_piece_unlabeled(small: Path, subset: str) -> None:
    seen = set()
    for points, labels in samples(small, "train", subset):
        seen |= set(labels.tolist())
        unlabeled = points[labels == 0]
        assert len(unlabeled) == 20
        reach = torch.cdist(unlabeled, points).sort(dim=1).values[:, 19]
        assert torch.isclose(reach, torch.cdist(unlabeled, unlabeled).max(dim=1).values).any()
    assert seen == {0, 1, 2, 3, 4}


def test_no_shape_of_a_miniature_is_in_two_splits(small: Path) -> None:
    sources = json.loads((small / RECORD).read_text())["sources"]
    assert len(sources["train"]) == 24 and len(sources["val"]) == 16
    assert not set(sources["train"]) & set(sources["val"])
    clouds = {
        sample[0].numpy().tobytes()
        for subset in ("Chair-1", "Lamp-1")
        for split in ("train", "val")
        for sample in samples(small, split, subset)
    }
    assert len(clouds) == 40
