"""UR-FUNNY: the conversion's rules, what a sample is, every fault of the pickle and of the arrays named."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from m2pt.datasets import urfunny
from m2pt.errors import InputError

INPUT = {"text": 3, "audio": 2, "video": 4}
WIDTHS = {"text": 3, "audio": 2, "vision": 4}
COUNTS = {"train": 12, "valid": 4, "test": 6}


def content() -> dict[str, dict[str, Any]]:
    """Return splits whose entries have 0, 1, 2 or 3 steps of zeros as text in front, and random labels."""
    draw = np.random.default_rng(0)
    splits: dict[str, dict[str, Any]] = {}
    for split, count in COUNTS.items():
        lengths = [4 + number % 5 for number in range(count)]
        splits[split] = {
            stream: [draw.normal(size=(length, width)) for length in lengths]
            for stream, width in WIDTHS.items()
        }
        for number in range(count):
            splits[split]["text"][number][: number % 4] = 0
        splits[split]["labels"] = [number % 2 for number in range(count)]
    return splits


def write(root: Path, splits: Any, *, convert: bool = True) -> Path:
    (root / urfunny.PICKLE).write_bytes(pickle.dumps(splits))
    if convert:
        urfunny.convert(root)
    return root


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("urfunny") / ".", content())


@pytest.fixture
def root(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "copy"))


def opened(root: Path, split: str, **changes: Any) -> urfunny.Reader:
    return urfunny.Reader(root, split, num_classes=2, **{**INPUT, **changes})


@pytest.mark.parametrize("split", urfunny.SPLITS)
def test_sequences_begin_at_the_first_word(converted: Path, split: str) -> None:
    entries = content()[urfunny.SPLITS[split]]
    reader = opened(converted, split)
    assert len(reader) == len(entries["labels"])
    for number in range(len(reader)):
        inputs, label = reader[number]
        assert label == number % 2 and list(inputs) == ["text", "audio", "video"]
        for modality, key in urfunny.STREAMS.items():
            expected = entries[key][number][number % 4 :].astype(np.float32)
            assert np.array_equal(inputs[modality]["values"], expected)
            assert inputs[modality]["lengths"] == len(expected)


def test_the_last_steps_of_a_long_sequence_are_kept(converted: Path) -> None:
    whole, cut = opened(converted, "train"), opened(converted, "train", max_length=3)
    for number in range(len(whole)):
        for modality in INPUT:
            assert torch.equal(cut[number][0][modality]["values"], whole[number][0][modality]["values"][-3:])


def test_entries_without_text_are_left_out_and_infinity_and_labels_replaced(tmp_path: Path) -> None:
    splits = content()
    train = splits["train"]
    train["text"][1][:] = 0
    train["audio"][2][3, 1] = -np.inf
    train["labels"] = [-1, 1, 0.0, 1, True, 0, 1, 1, 1, 1, 1, -1.0]
    write(tmp_path, splits)
    assert urfunny.check(tmp_path, num_classes=2, full=True) == []
    assert urfunny.counts(tmp_path) == {"train": 11, "val": 4, "test": 6}
    reader = opened(tmp_path, "train")
    assert [reader[number][1] for number in range(11)] == [0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0]
    audio = reader[1][0]["audio"]["values"]
    expected = train["audio"][2][2:].astype(np.float32)
    expected[1, 1] = 0
    assert np.array_equal(audio, expected)


def test_rectangular_arrays_are_read_as_lists_are(tmp_path: Path) -> None:
    splits = content()
    for entries in splits.values():
        for stream, width in WIDTHS.items():
            entries[stream] = [np.resize(each, (5, width)) for each in entries[stream]]
        entries["text"] = [each + 10 for each in entries["text"]]
    write(tmp_path, splits)
    before = [opened(tmp_path, "test")[i][0]["video"]["values"] for i in range(6)]
    for entries in splits.values():
        entries.update({stream: np.stack(entries[stream]) for stream in WIDTHS})
        entries["labels"] = np.array(entries["labels"])[:, None]
    write(tmp_path, splits)
    after = [opened(tmp_path, "test")[i][0]["video"]["values"] for i in range(6)]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_workers_read_the_same_and_batches_are_padded(converted: Path) -> None:
    reader = opened(converted, "train")
    keys = [(0, i) for i in range(12)]
    loader = DataLoader(reader, sampler=keys, batch_size=6, num_workers=2, collate_fn=urfunny.collate)
    batches = list(loader)
    assert sum(len(labels) for _, labels in batches) == 12
    inputs, labels = batches[0]
    made, made_labels = urfunny.synthetic_batch(
        6, num_classes=2, input={**INPUT, "max_length": 7}, augmentation=None, device=torch.device("cpu")
    )
    assert list(made) == list(inputs) and made_labels.dtype == labels.dtype
    for modality in made:
        assert made[modality].keys() == inputs[modality].keys()
        for key, value in made[modality].items():
            assert value.dtype == inputs[modality][key].dtype
            assert value.dim() == inputs[modality][key].dim()
        for row in range(6):
            alone = reader[row][0][modality]["values"]
            padded = inputs[modality]["values"][row]
            assert torch.equal(padded[: len(alone)], alone) and padded[len(alone) :].eq(0).all()


def entry(stream: str, number: int, value: Any, split: str = "train") -> Any:
    def apply(splits: dict[str, Any]) -> None:
        splits[split][stream][number] = value

    return apply


PICKLE_FAULTS = {
    "no split": (lambda s: s.pop("valid"), "must be a dict with a dict for 'valid'"),
    "no stream": (lambda s: s["train"].pop("audio"), "train must have an array or a list of arrays 'audio'"),
    "fewer entries": (lambda s: s["test"]["vision"].pop(), "test has 5 entries of vision, but 6 of text"),
    "no labels": (lambda s: s["test"].pop("labels"), "test must have 'labels' with one number for each of"),
    "fewer labels": (lambda s: s["test"]["labels"].pop(), "one number for each of its 6 entries"),
    "NaN label": (
        entry("labels", 0, np.nan),
        "train entry 0 has the label nan, which must be one of 1, 0, -1",
    ),
    "label 7": (entry("labels", 3, 7), "train entry 3 has the label 7, which must be one of 1, 0, -1"),
    "infinite label": (entry("labels", 3, np.inf), "train entry 3 has the label inf, which must be one of"),
    "half label": (entry("labels", 3, 0.5, "test"), "test entry 3 has the label 0.5, which must be one of"),
    "quiet overflow": (
        entry("audio", 0, np.full((4, 2), -1e39)),
        "train entry 0 of audio: a value is beyond 3.4e38, which float32 cannot hold",
    ),
    "loud overflow": (entry("vision", 0, np.full((4, 4), 1e39)), "a value is beyond 3.4e38, which float32"),
    "no steps": (entry("audio", 3, np.zeros((0, 2))), "train entry 3 of audio must be numbers of shape"),
    "one axis": (entry("text", 3, np.zeros(5)), "train entry 3 of text must be numbers of shape"),
    "ragged steps": (entry("text", 3, [[1.0], [1.0, 2.0]]), "train entry 3 of text must be numbers"),
    "words": (entry("text", 3, [["a"]]), "train entry 3 of text must be numbers"),
    "other width": (entry("vision", 3, np.ones((9, 5))), "entries of vision with different numbers of"),
    "ends before the text": (entry("audio", 3, np.ones((3, 2))), "entry 3 has no step of audio from its"),
    "NaN": (entry("text", 0, np.full((4, 3), np.nan)), "entry 0 has values of text that are infinite or NaN"),
    "infinite sound": (entry("audio", 0, np.full((4, 2), np.inf)), "entry 0 has values of audio"),
    "no text": (lambda s: [t.fill(0) for t in s["test"]["text"]], "test has no entry with text"),
    "objects": (entry("text", 0, Path("a")), "which is not part of an array"),
}


@pytest.mark.parametrize("name", PICKLE_FAULTS)
def test_the_conversion_names_every_fault_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    splits = content()
    damage, message = PICKLE_FAULTS[name]
    damage(splits)
    write(tmp_path, splits, convert=False)
    with pytest.raises(InputError) as caught:
        urfunny.convert(tmp_path)
    assert message in str(caught.value) and str(tmp_path / urfunny.PICKLE) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [urfunny.PICKLE]
    (problem,) = urfunny.check(tmp_path, num_classes=2, full=True)
    assert problem.endswith(f"is not converted yet: run `m2pt data convert urfunny {tmp_path}`.")
    with pytest.raises(InputError, match="is not converted yet"):
        opened(tmp_path, "train")


def test_a_failed_conversion_leaves_the_earlier_arrays_in_use_and_says_so(root: Path) -> None:
    before = [opened(root, "train")[number][0]["text"]["values"] for number in range(12)]
    splits = content()
    splits["train"]["labels"][0] = 7
    write(root, splits, convert=False)
    words = "has the label 7, .* Nothing was converted: readers still use the arrays of an earlier conversion"
    with pytest.raises(InputError, match=words):
        urfunny.convert(root)
    after = [opened(root, "train")[number][0]["text"]["values"] for number in range(12)]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    (problem,) = urfunny.check(root, num_classes=2, full=False)
    assert "is that of another humor.pkl" in problem


def replaced(file: str, change: Any) -> Any:
    def apply(root: Path) -> None:
        path = root / "arrays" / file
        np.save(path, change(np.load(path)))

    return apply


def with_nan(array: np.ndarray) -> np.ndarray:
    array[5] = np.nan
    return array


def swapped(offsets: np.ndarray) -> np.ndarray:
    offsets[2] = offsets[1]
    return offsets


def cut(root: Path) -> None:
    path = root / "arrays/valid/video.npy"
    path.write_bytes(path.read_bytes()[:-4])


FAULTS = {
    "file": (lambda r: (r / "arrays/test/audio.npy").unlink(), "test/audio.npy cannot be read"),
    "no labels": (lambda r: (r / "arrays/test/labels.npy").unlink(), "test/labels.npy cannot be read"),
    "no source": (lambda r: (r / "arrays/source.json").unlink(), "source.json: cannot be read"),
    "another pickle": (lambda r: write(r, content()["test"], convert=False), "is that of another humor.pkl"),
    "label": (replaced("test/labels.npy", lambda a: a + 1), "labels.npy row 1 has the label 2"),
    "empty class": (replaced("test/labels.npy", lambda a: a * 0), "class 1 (humorous) is empty"),
    "fewer labels": (replaced("test/labels.npy", lambda a: a[:-1]), "text_offsets.npy must be 6 integers"),
    "fewer steps": (replaced("test/text.npy", lambda a: a[:-1]), "text_offsets.npy must go from 0 to the"),
    "zero length": (replaced("test/text_offsets.npy", swapped), "row 2 gives sequence 1 no steps"),
    "float offsets": (replaced("test/text_offsets.npy", lambda a: a * 1.0), "must be 7 integers"),
    "integers": (replaced("test/text.npy", lambda a: a.astype(int)), "must be floats of shape"),
    "axes": (replaced("test/text.npy", lambda a: a[..., None]), "must be floats of shape"),
    "other width": (
        replaced("test/video.npy", lambda a: a[:, :3]),
        "test/video.npy has 3 features per step, but",
    ),
    "NaN": (replaced("train/audio.npy", with_nan), "train/audio.npy row 5 has values"),
    "truncated": (cut, "valid/video.npy cannot be read as an array"),
}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_the_arrays_is_one_sentence(name: str, full: bool, root: Path) -> None:
    assert urfunny.check(root, num_classes=2, full=full) == []
    damage, message = FAULTS[name]
    damage(root)
    problems = urfunny.check(root, num_classes=2, full=full)
    assert any(message in problem for problem in problems), problems
    assert all(str(root) in problem and problem.endswith(".") for problem in problems)


def test_another_pickle_of_the_same_size_is_found_by_the_full_check_and_if_it_is_newer(root: Path) -> None:
    path = root / urfunny.PICKLE
    original = path.read_bytes()
    path.write_bytes(original[:-1] + b"!")
    for full in (False, True):
        (problem,) = urfunny.check(root, num_classes=2, full=full)
        assert "is that of another humor.pkl" in problem
    os.utime(path, (0, 0))
    assert urfunny.check(root, num_classes=2, full=False) == []
    (problem,) = urfunny.check(root, num_classes=2, full=True)
    assert "is that of another humor.pkl" in problem
    path.write_bytes(original)  # newer, but the same
    assert urfunny.check(root, num_classes=2, full=False) == []


def test_the_pickle_is_not_needed_afterwards(root: Path) -> None:
    assert set(urfunny.files(root)) == {path for path in root.rglob("*") if path.is_file()}
    (root / urfunny.PICKLE).unlink()
    assert urfunny.check(root, num_classes=2, full=True) == []
    assert set(urfunny.files(root)) == {path for path in root.rglob("*") if path.is_file()}


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    with pytest.raises(InputError, match="has 3 features per step, not text = 300"):
        urfunny.Reader(root, "train", num_classes=2)
    with pytest.raises(InputError, match="has 2 classes, not num_classes = 3"):
        urfunny.Reader(root, "train", num_classes=3, **INPUT)
    FAULTS["NaN"][0](root)
    reader = opened(root, "train")
    with pytest.raises(InputError, match="row 5 has values that are infinite, NaN or too large"):
        [reader[number] for number in range(12)]
