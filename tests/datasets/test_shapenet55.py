"""The ShapeNet-55 reader: normalization, sampling, augmentation by definition, and every problem."""

from pathlib import Path

import numpy as np
import pytest
import torch

from m2pt.datasets import shapenet55
from m2pt.datasets.augmentations import PointcloudAugmentation
from m2pt.errors import InputError

NAMES = {"train": ["02691156-a1.npy", "03001627-b-2.npy"], "val": ["02691156-c3.npy", "03001627-d4.npy"]}

CLOUDS = "ShapeNet55-34/shapenet_pc"
LISTS = {"train": "ShapeNet55-34/ShapeNet-55/train.txt", "val": "ShapeNet55-34/ShapeNet-55/test.txt"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    (tmp_path / CLOUDS).mkdir(parents=True)
    for split, relative in LISTS.items():
        path = tmp_path / relative
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in NAMES[split]))
        for name in NAMES[split]:
            np.save(tmp_path / CLOUDS / name, draw.normal(2, 3, (500, 3)).astype(np.float32))
    return tmp_path


def cloud(root: Path, name: str) -> np.ndarray:
    return np.load(root / CLOUDS / name)


def test_evaluation_view_is_the_normalized_cloud(root: Path) -> None:
    reader = shapenet55.Reader(root, "val", num_classes=2, points=500)
    points, label = reader[1]
    raw = cloud(root, NAMES["val"][1]).astype(np.float64)
    expected = raw - raw.mean(axis=0)
    expected /= max(np.linalg.norm(point) for point in expected)
    assert label == 1 and len(reader) == 2 and points.dtype == torch.float32
    np.testing.assert_allclose(points, expected, atol=1e-6)
    fewer = shapenet55.Reader(root, "val", num_classes=2, points=100)
    assert fewer[0][0].shape == (100, 3)
    assert torch.equal(fewer[(0, 0)][0], fewer[(5, 0)][0])


def test_the_root_may_be_the_release_and_the_clouds_may_lie_beside_it(root: Path) -> None:
    expected = shapenet55.Reader(root, "train", num_classes=2, points=500)[0][0]
    release = root / "ShapeNet55-34"
    assert torch.equal(shapenet55.Reader(release, "train", num_classes=2, points=500)[0][0], expected)
    assert shapenet55.check(release, num_classes=2, full=True) == []
    (root / CLOUDS).rename(root / "shapenet_pc")
    assert torch.equal(shapenet55.Reader(root, "train", num_classes=2, points=500)[0][0], expected)
    assert shapenet55.check(root, num_classes=2, full=True) == []
    assert {path.parent for path in shapenet55.files(root)} == {release / "ShapeNet-55", root / "shapenet_pc"}


def test_training_view_scales_and_shifts_a_random_sample(root: Path) -> None:
    settings = PointcloudAugmentation(scale=(2 / 3, 3 / 2), translate=0.2)
    reader = shapenet55.Reader(root, "train", num_classes=2, points=500, augmentation=settings)
    normalized = shapenet55.Reader(root, "train", num_classes=2, points=500)[0][0].numpy()
    factors, shifts = [], []
    for epoch in range(50):
        view = reader[(epoch, 0)][0].numpy()
        factor = np.ptp(view, axis=0) / np.ptp(normalized, axis=0)
        shift = view.min(axis=0) - factor * normalized.min(axis=0)
        restored = (view - shift) / factor
        np.testing.assert_allclose(np.sort(restored, axis=0), np.sort(normalized, axis=0), atol=1e-4)
        factors.append(factor)
        shifts.append(shift)
    assert 2 / 3 - 1e-3 < np.min(factors) < 0.75 and 1.4 < np.max(factors) < 3 / 2 + 1e-3
    assert -0.201 < np.min(shifts) < -0.15 and 0.15 < np.max(shifts) < 0.201
    assert np.std(factors[0]) > 0, "each axis has a factor of its own"


def test_training_samples_are_points_of_the_file_without_repetition(root: Path) -> None:
    reader = shapenet55.Reader(
        root,
        "train",
        num_classes=2,
        points=500,
        augmentation=PointcloudAugmentation(scale=(1, 1), translate=0),
    )
    whole = shapenet55.Reader(root, "train", num_classes=2, points=500)[0][0]
    shuffled = reader[(1, 0)][0]
    assert not torch.equal(shuffled, whole)
    np.testing.assert_allclose(np.sort(shuffled, axis=0), np.sort(whole, axis=0), atol=1e-6)
    few = shapenet55.Reader(
        root,
        "train",
        num_classes=2,
        points=50,
        augmentation=PointcloudAugmentation(scale=(1, 1), translate=0),
    )
    assert not torch.equal(few[(0, 0)][0], few[(1, 0)][0])
    assert torch.equal(few[(1, 0)][0], few[(1, 0)][0])


def test_a_sound_dataset_has_no_problems_and_is_described(root: Path) -> None:
    assert shapenet55.check(root, num_classes=2, full=True) == []
    assert shapenet55.classes(root) == ["02691156", "03001627"]
    assert shapenet55.counts(root) == {"train": 2, "val": 2}
    assert {path for path in root.rglob("*") if path.is_file()} == set(shapenet55.files(root))


def damage_list(root: Path, split: str, text: str) -> None:
    (root / LISTS[split]).write_text(text)


def replace(root: Path, array: np.ndarray) -> None:
    np.save(root / CLOUDS / NAMES["train"][0], array)


def cut(root: Path, size: int) -> None:
    path = root / CLOUDS / NAMES["train"][0]
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: (r / LISTS["val"]).unlink(), "test.txt: cannot be read"),
        (lambda r: damage_list(r, "val", ""), "test.txt is empty"),
        (
            lambda r: damage_list(r, "val", "02691156.npy\n"),
            "<model>.npy`, got '02691156.npy'",
        ),
        (
            lambda r: damage_list(r, "val", NAMES["val"][0] + "\n"),
            "class 03001627 is empty: ",
        ),
        (lambda r: damage_list(r, "train", "9-x.npy\n"), "3 synsets, not num_classes = 2"),
        (lambda r: (r / CLOUDS).rename(r / "elsewhere"), "a1.npy is missing, but"),
        (lambda r: (r / CLOUDS / NAMES["train"][0]).unlink(), "a1.npy is missing, but"),
        (lambda r: replace(r, np.zeros((500, 4), np.float32)), "got float32 of shape (500, 4)"),
        (lambda r: replace(r, np.zeros((0, 3), np.float32)), "got float32 of shape (0, 3)"),
        (lambda r: replace(r, np.zeros((500, 3), np.int64)), "got int64"),
        (lambda r: replace(r, np.array([None])), "a1.npy cannot be read as an array"),
        (lambda r: cut(r, 1000), "a1.npy cannot be read as an array"),
        (lambda r: cut(r, 0), "a1.npy cannot be read as an array"),
    ],
)
def test_every_problem_is_named_by_the_quick_form(root: Path, damage, message: str) -> None:
    damage(root)
    problems = shapenet55.check(root, num_classes=2, full=False)
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("full", [True, False])
def test_coordinates_are_read(root: Path, value: float, full: bool) -> None:
    replace(root, np.full((500, 3), value, np.float32))
    (problem,) = shapenet55.check(root, num_classes=2, full=full)
    assert "a1.npy has coordinates that are infinite" in problem
    cut(root, 1000)
    (problem,) = shapenet55.check(root, num_classes=2, full=full)
    assert "a1.npy cannot be read as an array" in problem


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    with pytest.raises(InputError, match="not num_classes = 55"):
        shapenet55.Reader(root, "train", num_classes=55, points=100)
    with pytest.raises(InputError, match="has 500 points, fewer than points = 501"):
        shapenet55.Reader(root, "train", num_classes=2, points=501)  # before a training, not within it
    replace(root, np.array([{"code": "runs"}]))
    with pytest.raises(InputError, match=r"a1.npy cannot be read as an array: Object arrays"):
        shapenet55.Reader(root, "train", num_classes=2, points=100)[0]
    damage_list(root, "train", "bad\nworse\n")
    with pytest.raises(InputError, match=r"line 1 must be .*got 'bad'.* 1 more"):
        shapenet55.Reader(root, "train", num_classes=2, points=100)
