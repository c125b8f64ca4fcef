"""AV-MNIST: samples are the files' rows, splits are disjoint and complete, every fault is named."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from m2pt.datasets import avmnist
from m2pt.datasets.arrays import MappedArray
from m2pt.errors import InputError

ROWS = {"train": 60, "test": 20}
INPUT = {"image_size": 4, "audio_size": 5}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for modality, shape in (("image", (16,)), ("audio", (5, 5))):
        (tmp_path / modality).mkdir()
        for listed, rows in ROWS.items():
            array = draw.integers(0, 256, (rows, *shape), dtype=np.uint8)
            np.save(tmp_path / modality / f"{listed}_data.npy", array)
    for listed, rows in ROWS.items():
        np.save(tmp_path / f"{listed}_labels.npy", np.arange(rows) % 3)
    return tmp_path


def opened(root: Path, split: str, **changes: Any) -> avmnist.Reader:
    return avmnist.Reader(root, split, num_classes=3, **{**INPUT, **changes})


def stored(root: Path, listed: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    files = [f"audio/{listed}_data.npy", f"image/{listed}_data.npy", f"{listed}_labels.npy"]
    audio, image, labels = (np.load(root / file) for file in files)
    return audio, image, labels


def test_reconstructed_images_may_overshoot_a_little(root: Path) -> None:
    path = root / "image/train_data.npy"
    np.save(path, np.load(path).astype(np.float32) * 1.2 - 30)
    assert avmnist.check(root, num_classes=3, full=True) == []


def test_a_sample_is_a_row_of_each_file_divided_by_255(root: Path) -> None:
    audio, image, labels = stored(root, "test")
    reader = opened(root, "test")
    assert len(reader) == 20
    for row in range(20):
        inputs, label = reader[row]
        assert label == labels[row]
        np.testing.assert_allclose(inputs["audio"][0], audio[row] / 255, rtol=1e-6)
        np.testing.assert_allclose(inputs["image"][0], image[row].reshape(4, 4) / 255, rtol=1e-6)
        assert inputs["audio"].dtype == inputs["image"].dtype == torch.float32


def test_train_and_val_divide_the_training_rows_whatever_the_seed(root: Path) -> None:
    found = {
        split: {tuple(opened(root, split, seed=seed)[i][0]["audio"].ravel().tolist()) for i in range(size)}
        for split, size, seed in (("train", 54, 0), ("val", 6, 5))
    }
    audio, _, _ = stored(root, "train")
    rows = {tuple((row / np.float32(255)).ravel().tolist()) for row in audio.astype(np.float32)}
    assert not found["train"] & found["val"] and found["train"] | found["val"] == rows
    labels = [opened(root, "val")[i][1] for i in range(6)]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]
    assert avmnist.counts(root) == {"train": 54, "val": 6, "test": 20}
    assert avmnist.classes(root) == ["0", "1", "2"]


def test_workers_read_the_same_and_a_pickled_reader_holds_no_values(root: Path) -> None:
    reader = opened(root, "train")
    alone = [reader[i] for i in range(len(reader))]
    keys = [(0, i) for i in range(len(reader))]
    batches = DataLoader(reader, sampler=keys, batch_size=None, num_workers=2)
    for (inputs, label), (expected, expected_label) in zip(batches, alone, strict=True):
        assert label == expected_label
        assert all(torch.equal(inputs[modality], expected[modality]) for modality in expected)
    big = np.lib.format.open_memmap(root / "big.npy", "w+", np.uint8, (1 << 20, 4))
    big[7] = 3
    array = MappedArray(root / "big.npy")
    assert array[7].tolist() == [3] * 4
    copy = pickle.dumps(array)
    # our own bytes, as a loader process gets them
    assert len(copy) < 1000 and pickle.loads(copy)[7].tolist() == [3] * 4  # our own bytes


def test_a_synthetic_batch_looks_like_a_real_one(root: Path) -> None:
    reader = opened(root, "train")
    inputs, labels = default_collate([reader[i] for i in range(4)])
    made, made_labels = avmnist.synthetic_batch(
        4, num_classes=3, input=INPUT, augmentation=None, device=torch.device("cpu")
    )
    assert list(made) == list(inputs) == list(avmnist.MODALITIES)
    for modality in inputs:
        assert made[modality].shape == inputs[modality].shape and made[modality].dtype == torch.float32
    assert made_labels.shape == labels.shape and made_labels.dtype == labels.dtype


def replaced(file: str, change: Any) -> Any:
    def apply(root: Path) -> None:
        np.save(root / file, change(np.load(root / file)))

    return apply


def with_value(value: float, row: int) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[row] = value
        return array

    return change


def cut(root: Path) -> None:
    path = root / "audio/train_data.npy"
    path.write_bytes(path.read_bytes()[:-10])


def archived(root: Path) -> None:
    np.savez(root / "a.npz", np.zeros(3))
    (root / "a.npz").rename(root / "test_labels.npy")


FAULTS = {
    "missing": (lambda r: (r / "image/test_data.npy").unlink(), "image/test_data.npy cannot be read"),
    "no labels file": (lambda r: (r / "train_labels.npy").unlink(), "train_labels.npy cannot be read"),
    "fewer images": (replaced("image/test_data.npy", lambda a: a[:-1]), "has 19 rows, "),
    "fewer labels": (replaced("test_labels.npy", lambda a: a[:-1]), "test_labels.npy has 19 rows: they must"),
    "label out of range": (replaced("test_labels.npy", lambda a: a + 1), "row 2 has the label 3, which"),
    "negative label": (replaced("test_labels.npy", lambda a: a - 1), "row 0 has the label -1"),
    "half label": (replaced("test_labels.npy", lambda a: a / 2), "row 1 has the label 0.5"),
    "NaN label": (replaced("test_labels.npy", with_value(np.nan, 3)), "row 3 has the label nan"),
    "labels of two columns": (
        replaced("test_labels.npy", lambda a: np.eye(3)[a]),
        "test_labels.npy must have one label per row, got an array of shape (20, 3)",
    ),
    "empty class": (
        replaced("test_labels.npy", lambda a: np.minimum(a, 1)),
        "class 2 is empty: ",
    ),
    "no rows": (replaced("test_labels.npy", lambda a: a[:0]), "test_labels.npy has no labels"),
    "shape": (replaced("audio/train_data.npy", lambda a: a[:, :4]), "got uint8 of shape (60, 4, 5)"),
    "not square": (replaced("image/train_data.npy", lambda a: a[:, :15]), "got uint8 of shape (60, 15)"),
    "other side": (
        replaced("audio/test_data.npy", lambda a: a[:, :4, :4]),
        "audio has sides of 5 pixels in train and of 4 in test",
    ),
    "text": (replaced("image/train_data.npy", lambda a: a.astype(str)), "must be an array of real numbers"),
    "booleans": (replaced("image/train_data.npy", lambda a: a > 9), "array of real numbers, got bool"),
    "complex": (replaced("image/train_data.npy", lambda a: a * 1j), "array of real numbers, got complex"),
    "NaN": (replaced("audio/train_data.npy", with_value(np.nan, 7)), "train_data.npy row 7 has values"),
    "infinite": (replaced("image/train_data.npy", with_value(np.inf, 8)), "train_data.npy row 8 has values"),
    "negated": (
        replaced("image/train_data.npy", lambda a: -a.astype(np.float64)),
        "has the largest value that was read, ",
    ),
    "below 0": (
        replaced("audio/test_data.npy", with_value(-300, 7)),
        "row 7 has values of -300 to -300: give",
    ),
    "above 255": (
        replaced(
            "audio/train_data.npy", lambda a: a.astype(np.int16) + 512 * (np.arange(60)[:, None, None] // 59)
        ),
        "audio/train_data.npy row 59 has values of",
    ),
    "scaled": (
        replaced("image/test_data.npy", lambda a: a / 255),
        " has the largest value that was read, 0.98",
    ),
    "black": (
        replaced("audio/test_data.npy", lambda a: a * 0),
        "audio/test_data.npy row 0 has the largest value that was read, 0: give",
    ),
    "truncated": (cut, "audio/train_data.npy cannot be read as an array"),
    "objects": (replaced("test_labels.npy", lambda a: a.astype(object)), "test_labels.npy cannot be read as"),
    "archive": (archived, "test_labels.npy is an archive of arrays"),
}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_one_sentence_that_names_the_file(name: str, full: bool, root: Path) -> None:
    assert avmnist.check(root, num_classes=3, full=full) == []
    damage, message = FAULTS[name]
    damage(root)
    problems = avmnist.check(root, num_classes=3, full=full)
    assert [message in problem for problem in problems].count(True) == 1, problems
    assert all(str(root) in problem and problem.endswith(".") for problem in problems)


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    with pytest.raises(InputError, match="sides of 5 pixels, not audio_size = 112"):
        opened(root, "train", audio_size=112)
    with pytest.raises(InputError, match=r"held_out = 0\.001 leaves no sample for val"):
        opened(root, "val", held_out=0.001)
    with pytest.raises(InputError, match="row 2 has the label 2, which must be one of 0 to 1"):
        avmnist.Reader(root, "train", num_classes=2, **INPUT)
    FAULTS["NaN"][0](root)
    reader = opened(root, "train", held_out=0.02)
    with pytest.raises(InputError, match="row 7 has values that are infinite, NaN"):
        [reader[i] for i in range(len(reader))]


def test_floats_and_columns_of_labels_are_read_as_people_have_them(root: Path) -> None:
    before = [opened(root, "test")[i] for i in range(20)]
    replaced("test_labels.npy", lambda a: a.astype(np.float64)[:, None])(root)
    replaced("image/test_data.npy", lambda a: np.asfortranarray(a.astype(">f8")))(root)
    assert avmnist.check(root, num_classes=3, full=True) == []
    for (inputs, label), (expected, expected_label) in zip(
        (opened(root, "test")[i] for i in range(20)), before, strict=True
    ):
        assert label == expected_label and torch.equal(inputs["image"], expected["image"])


def test_the_files_are_all_there_are(root: Path) -> None:
    assert set(avmnist.files(root)) == {path for path in root.rglob("*") if path.is_file()}
