"""The ShapeNetPart reader: normalization, sampling, augmentation by definition; all problems; miniature."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from rebuilt import assert_seed_decides_bytes
from torch.utils.data import DataLoader

from m2pt.datasets import shapenetpart
from m2pt.datasets.augmentations import ShapeAugmentation
from m2pt.datasets.miniature import shapenetpart as miniature
from m2pt.datasets.miniature.staging import RECORD
from m2pt.datasets.shapenetpart import LISTS, PARTS, Reader
from m2pt.errors import InputError

MUG, CHAIR = "03797390", "03001627"
CATEGORY = {MUG: 0, CHAIR: 1}
SHAPES = {
    "train": [f"{MUG}/a", f"{CHAIR}/b"],
    "val": [f"{MUG}/c", f"{CHAIR}/d"],
    "test": [f"{MUG}/e", f"{CHAIR}/f"],
}


def list_path(root: Path, name: str) -> Path:
    return root / f"train_test_split/shuffled_{name}_file_list.json"


def write_rows(root: Path, shape: str, rows: np.ndarray) -> None:
    np.savetxt(root / f"{shape}.txt", rows, fmt="%.6f")


def rows(root: Path, shape: str) -> np.ndarray:
    return np.array([line.split() for line in (root / f"{shape}.txt").read_text().splitlines()], dtype=float)


def normalized(root: Path, shape: str) -> np.ndarray:
    points = rows(root, shape)[:, :3]
    points = points - points.mean(axis=0)
    return points / max(np.linalg.norm(point) for point in points)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    (tmp_path / "synsetoffset2category.txt").write_text(f"Mug\t{MUG}\nChair\t{CHAIR}\n")
    (tmp_path / "train_test_split").mkdir()
    for synset in CATEGORY:
        (tmp_path / synset).mkdir()
    for name, shapes in SHAPES.items():
        list_path(tmp_path, name).write_text(json.dumps([f"shape_data/{shape}" for shape in shapes]))
        for shape in shapes:
            parts = PARTS["Mug" if shape.startswith(MUG) else "Chair"]
            labels = draw.integers(parts.start, parts.stop, (80, 1))
            write_rows(tmp_path, shape, np.hstack([draw.normal(2, 3, (80, 6)), labels]))
    return tmp_path


def nearest(points: np.ndarray, among: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(points[:, None] - among, axis=2)
    assert distance.min(axis=1).max() < 1e-5
    return distance.argmin(axis=1)


@pytest.mark.parametrize("index", [0, 1])
def test_an_item_is_a_sample_with_replacement_of_the_normalized_shape(root: Path, index: int) -> None:
    shape = SHAPES["test"][index]
    points, category, parts = Reader(root, "val", num_classes=50, points=300)[index]
    assert points.shape == (300, 3) and points.dtype == torch.float32
    assert parts.shape == (300,) and parts.dtype == torch.int64 and category == CATEGORY[shape.split("/")[0]]
    drawn = nearest(points.numpy(), normalized(root, shape))
    assert np.array_equal(parts, rows(root, shape)[drawn, 6])
    assert 70 < len(set(drawn)) <= 80, "300 draws meet 80 points 3.75 times each, and hardly leave one out"


def test_the_official_validation_shapes_are_trained_on(root: Path) -> None:
    reader = Reader(root, "train", num_classes=50, points=50)
    for index, shape in enumerate([*SHAPES["train"], *SHAPES["val"]]):
        nearest(reader[index][0].numpy(), normalized(root, shape))
    assert len(reader) == 4 and len(Reader(root, "val", num_classes=50, points=50)) == 2


def test_a_sample_depends_on_seed_epoch_and_index_alone(root: Path) -> None:
    keys = [(0, 1), (3, 1), (3, 0)]
    settings = ShapeAugmentation(scale=(0.8, 1.25), translate=0.1, isotropic=True)

    def reader(seed: int = 0) -> Reader:
        return Reader(root, "train", num_classes=50, points=40, seed=seed, augmentation=settings)

    alone = [reader()[key] for key in keys]
    for workers in (0, 2):
        loader = DataLoader(reader(), sampler=keys, batch_size=None, num_workers=workers)
        for (points, category, parts), expected in zip(loader, alone, strict=True):
            assert torch.equal(points, expected[0]) and category == expected[1]
            assert torch.equal(parts, expected[2])
    assert not torch.equal(alone[0][0], alone[1][0])
    assert not torch.equal(alone[0][0], reader(seed=1)[keys[0]][0])


@pytest.mark.parametrize("isotropic", [True, False])
def test_augmentation_scales_and_shifts_the_drawn_points(root: Path, isotropic: bool) -> None:
    settings = ShapeAugmentation(scale=(0.8, 1.25), translate=0.1, isotropic=isotropic)
    plain = Reader(root, "train", num_classes=50, points=100)
    augmented = Reader(root, "train", num_classes=50, points=100, augmentation=settings)
    factors, shifts = [], []
    for epoch in range(60):
        before, after = plain[(epoch, 1)][0].numpy(), augmented[(epoch, 1)][0].numpy()
        factor = np.ptp(after, axis=0) / np.ptp(before, axis=0)
        shift = after.min(axis=0) - factor * before.min(axis=0)
        np.testing.assert_allclose(after, before * factor + shift, atol=1e-5)
        factors.append(factor)
        shifts.append(shift)
    assert (np.ptp(factors, axis=1).max() < 1e-4) == isotropic
    assert 0.8 - 1e-3 < np.min(factors) < 0.83 and 1.22 < np.max(factors) < 1.25 + 1e-3
    assert -0.1001 < np.min(shifts) < -0.09 and 0.09 < np.max(shifts) < 0.1001
    assert np.ptp(shifts, axis=1).min() > 1e-3, "each axis has a shift of its own"


def test_the_official_part_numbers_are_dealt_out_without_gap() -> None:
    assert [part for parts in PARTS.values() for part in parts] == list(range(50))
    assert len(PARTS) == shapenetpart.NUM_CATEGORIES == 16
    assert list(PARTS) == sorted(PARTS) and PARTS["Motorbike"] == range(30, 36)


def test_a_sound_dataset_has_no_problems_and_is_described(root: Path) -> None:
    assert shapenetpart.check(root, num_classes=50, full=True) == []
    assert shapenetpart.counts(root) == {"train": 4, "val": 2}
    assert {path for path in root.rglob("*") if path.is_file()} == set(shapenetpart.files(root))
    names = shapenetpart.classes(root)
    assert len(names) == 50 and names[:5] == ["Airplane 0", "Airplane 1", "Airplane 2", "Airplane 3", "Bag 0"]


def write_list(root: Path, name: str, entries: object) -> None:
    list_path(root, name).write_text(json.dumps(entries))


def write_categories(root: Path, text: str) -> None:
    (root / "synsetoffset2category.txt").write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: (r / "synsetoffset2category.txt").unlink(), "synsetoffset2category.txt: cannot be read"),
        (lambda r: write_categories(r, ""), "synsetoffset2category.txt is empty"),
        (
            lambda r: write_categories(r, f"Mug\t{MUG}\nSofa\t{CHAIR}\n"),
            "<TAB>synset`, got 'Sofa\\t03001627'",
        ),
        (
            lambda r: write_categories(r, f"Mug\t{MUG}\nMug\t{CHAIR}\n"),
            "has the duplicate category Mug",
        ),
        (lambda r: write_categories(r, f"Mug\t{MUG}\n"), f"has no synset {CHAIR}"),
        (lambda r: list_path(r, "val").unlink(), "shuffled_val_file_list.json: cannot be read"),
        (
            lambda r: list_path(r, "test").write_text("["),
            "test_file_list.json: not valid JSON",
        ),
        (lambda r: write_list(r, "train", {}), "shuffled_train_file_list.json must be a list"),
        (
            lambda r: write_list(r, "train", [f"{MUG}/a"]),
            f"<id>`, got '{MUG}/a'",
        ),
        (lambda r: write_list(r, "train", [3]), "<id>`, got 3"),
        (lambda r: write_list(r, "test", [f"shape_data/{MUG}/e"]), "class 1 (Chair) is empty"),
        (
            lambda r: write_list(r, "val", [f"shape_data/{MUG}/a"]),
            "duplicate entry 03797390/a.txt: /",
        ),
        (lambda r: (r / MUG / "a.txt").unlink(), "a.txt is missing, but"),
        (lambda r: (r / MUG).rename(r / "elsewhere"), "c.txt is missing, but"),
        (
            lambda r: write_rows(r, f"{MUG}/a", np.zeros((9, 4))),
            "a.txt must have rows of 7 numbers, `x y z nx ny nz part`, got 9 rows of 4",
        ),
        (lambda r: (r / MUG / "a.txt").write_text("a b c\n"), "a.txt cannot be read as rows of numbers"),
    ],
)
def test_every_problem_is_named_by_the_quick_form(root: Path, damage, message: str) -> None:
    damage(root)
    problems = shapenetpart.check(root, num_classes=50, full=False)
    assert any(message in problem for problem in problems), problems


def test_the_number_of_parts_is_the_layouts(root: Path) -> None:
    (problem,) = shapenetpart.check(root, num_classes=16, full=False)
    assert "num_classes = 16" in problem
    with pytest.raises(InputError, match="num_classes = 16"):
        Reader(root, "train", num_classes=16, points=10)


def changed(root: Path, row: int, column: int, value: float) -> None:
    table = rows(root, f"{MUG}/a")
    table[row, column] = value
    write_rows(root, f"{MUG}/a", table)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: changed(r, 7, 0, np.nan), "a.txt has coordinates that are infinite or NaN"),
        (lambda r: changed(r, 7, 2, np.inf), "a.txt has coordinates that are infinite or NaN"),
        (
            lambda r: changed(r, 7, 6, 38),
            "a.txt has part numbers 36 to 38, but its category has 36 to 37",
        ),
        (lambda r: changed(r, 7, 6, 12), "a.txt has part numbers 12 to 37"),
        (
            lambda r: (r / MUG / "a.txt").write_text("0 0 0 0 0 0 36\n0 0 0 36\n"),
            "a.txt cannot be read as rows of numbers: the number of columns changed from 7 to 4",
        ),
    ],
)
def test_all_lines_are_read(root: Path, damage, message: str) -> None:
    damage(root)
    (problem,) = shapenetpart.check(root, num_classes=50, full=True)
    assert message in problem
    assert shapenetpart.check(root, num_classes=50, full=False) == [problem]  # of so few shapes it reads all


def test_the_quick_form_reads_a_sample_of_whole_shapes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2pt.datasets.checks.QUICK_SAMPLE", 1)
    changed(root, 3, 6, 49)  # of the first shape of its split
    (problem,) = shapenetpart.check(root, num_classes=50, full=False)
    assert "a.txt has part numbers" in problem


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    changed(root, 3, 6, 49)
    with pytest.raises(InputError, match=r"a\.txt has part numbers 36 to 49"):
        Reader(root, "train", num_classes=50, points=10)[0]
    (root / MUG / "a.txt").unlink()
    with pytest.raises(InputError, match=r"a\.txt: cannot be read"):
        Reader(root, "train", num_classes=50, points=10)[0]
    write_list(root, "train", ["a", "b"])
    with pytest.raises(InputError, match=r"entries must be .*, got 'a'.* 1 more"):
        Reader(root, "train", num_classes=50, points=10)


SIZES = {"train": 90, "val": 30, "points": 128}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts") / "shapenetpart"
    miniature.build(root, seed=1, **SIZES)
    return root


def test_a_miniature_is_sound_and_the_same_bytes_for_the_same_seed(small: Path, tmp_path: Path) -> None:
    assert shapenetpart.check(small, num_classes=50, full=True) == []
    assert shapenetpart.counts(small) == {"train": 90, "val": 30}
    assert {*shapenetpart.files(small), small / RECORD} == {p for p in small.rglob("*") if p.is_file()}
    assert_seed_decides_bytes(partial(miniature.build, **SIZES), small, tmp_path, seed=1)


def test_no_shape_of_a_miniature_is_in_two_splits(small: Path) -> None:
    listed = [json.loads((small / relative).read_text()) for lists in LISTS.values() for relative in lists]
    assert [len(entries) for entries in listed] == [79, 11, 30]
    names = [entry for entries in listed for entry in entries]
    assert len(set(names)) == len(names) == 120
    contents = {path.read_bytes() for path in small.glob("0*/*.txt")}
    assert len(contents) == 120


def test_a_miniatures_shapes_have_points_of_every_part_and_uneven_categories(small: Path) -> None:
    reader = Reader(small, "train", num_classes=50, points=500)
    samples = [reader[index] for index in range(len(reader))]
    counts = torch.bincount(torch.tensor([category for _, category, _ in samples]))
    assert sorted(counts.tolist()) == [6] * 5 + [12] * 5
    seen = set(torch.cat([parts for _, _, parts in samples]).tolist())
    kinds = ["Airplane", "Chair", "Guitar", "Knife", "Lamp", "Laptop", "Mug", "Rocket", "Skateboard", "Table"]
    assert seen == {part for kind in kinds for part in PARTS[kind]}
