"""Corrupt samples: which sample replaces one, and what a check with `corrupt_samples: skip` refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_layouts import LAYOUTS, SAMPLES, cut, opened

from m2pt.datasets import corrupt
from m2pt.datasets.base import SeededDataset, seed_generators
from m2pt.datasets.corrupt import DatasetError
from m2pt.datasets.layouts import check
from m2pt.errors import InputError

Root = Callable[[str], Path]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    def build(layout: str) -> Path:
        LAYOUTS[layout].build(tmp_path / layout)
        return tmp_path / layout

    return build


def same(sample: Any, other: Any) -> bool:
    if isinstance(sample, torch.Tensor):
        return torch.equal(sample, other)
    if isinstance(sample, tuple):
        return len(sample) == len(other) and all(map(same, sample, other))
    return bool(sample == other)


def expected(reader: Any, epoch: int, index: int) -> Any:
    """Read the first sample from `index` on that can be read, in generators seeded with the distance."""
    for distance in range(3):
        seed_generators(reader.seed, epoch, index, *([distance] if distance else []))
        try:
            return reader.load((index + distance) % len(reader))
        except InputError:
            continue
    raise AssertionError(f"sample {index} has no neighbor")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_next_sample_that_can_be_read_replaces_a_corrupt_one_with_a_view_of_its_own(
    layout: str, root: Root
) -> None:
    folder = root(layout)
    files = [str(path) for path in LAYOUTS[layout].damage(folder, 3, SAMPLES - 1)]
    strict, lenient = opened(layout, folder), opened(layout, folder, skip=True)
    corrupt.take_skipped()
    for epoch in (0, 1):
        for index in (2, 3, 4, SAMPLES - 1, 0):
            with_skip = lenient[epoch, index]
            messages = corrupt.take_skipped()
            try:
                assert same(strict[epoch, index], with_skip)
                assert messages == []
            except InputError as error:
                assert messages == [str(error)]
                assert any(file in messages[0] for file in files)
                assert same(expected(strict, epoch, index), with_skip)
                assert not same(with_skip, strict[epoch, (index + 1) % SAMPLES])  # which is in the epoch too
    with pytest.raises(InputError, match=Path(files[0]).name):
        strict[0, 3]


def test_two_in_a_row_are_replaced_by_the_one_after_and_three_of_200_are_too_many(root: Root) -> None:
    layout, folder = LAYOUTS["imagenet"], root("imagenet")
    first, _ = layout.damage(folder, 5, 6)
    strict, lenient = opened("imagenet", folder), opened("imagenet", folder, skip=True)
    assert same(lenient[1, 5], expected(strict, 1, 5))
    assert same(lenient[1, 6], expected(strict, 1, 6))
    layout.damage(folder, 7)
    with pytest.raises(InputError, match=rf"{first}.* The next 2 samples of the split cannot be read"):
        lenient[1, 5]


def test_of_a_large_split_a_hundred_in_a_row_are_too_many(root: Root, monkeypatch: Any) -> None:
    folder = root("imagenet")
    reader = opened("imagenet", folder, skip=True)
    monkeypatch.setattr(type(reader), "__len__", lambda _: 10**6)
    reads = []

    def load(index: int) -> None:
        reads.append(index)
        raise InputError("x.")

    monkeypatch.setattr(reader, "load", load)
    with pytest.raises(InputError, match="The next 100 samples of the split cannot be read"):
        reader[0, 10**6 - 1]
    assert reads == [10**6 - 1, *range(100)]


class WrongLabels(SeededDataset):
    """200 samples: one is corrupt, and the next has a label that the settings do not allow."""

    skip_corrupt = True

    def __len__(self) -> int:
        return 200

    def load(self, index: int) -> int:
        if index == 2:
            raise DatasetError("label 9, but num_classes is 2.")
        if index == 1:
            raise InputError("cannot be read.")
        return index


def test_what_is_wrong_with_the_dataset_is_never_skipped() -> None:
    for index in (1, 2):  # the sample that would replace the first is the second
        with pytest.raises(DatasetError, match="label 9"):
            WrongLabels()[index]


def test_a_split_may_have_one_percent_of_corrupt_samples_and_always_one() -> None:
    assert [corrupt.most_corrupt(samples) for samples in (1, 99, 199, 200, 1_281_167)] == [1, 1, 1, 2, 12_811]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_check_tells_corrupt_training_samples_from_what_is_refused(
    layout: str, full: bool, root: Root
) -> None:
    entry, folder = LAYOUTS[layout], root(layout)

    def separated() -> tuple[list[str], list[str]]:
        return corrupt.separate(check(layout, folder, num_classes=entry.num_classes, full=full))

    assert separated() == ([], [])
    files = entry.damage(folder, 3, 150)
    refused, skipped = separated()
    assert refused == []
    assert [str(file) in message for file, message in zip(files, skipped, strict=True)] == [True, True]

    evaluated = cut(folder / entry.evaluated)
    refused, skipped = separated()
    assert len(refused) == 1 and str(evaluated) in refused[0]
    assert len(skipped) == 2

    entry.damage(folder, 4)
    refused, skipped = separated()
    beyond = "3 of the 200 training samples that were read are corrupt, more than the 1 % that"
    assert [beyond in message for message in refused].count(True) == 1
    assert len(refused) == 5 and skipped == []


def test_a_missing_file_or_folder_is_refused(root: Root) -> None:
    audio, images = root("audioset"), root("imagenet")
    (audio / "train/007.wav").unlink()
    ((problem,), skipped) = corrupt.separate(check("audioset", audio, num_classes=2, full=True))
    assert "train/007.wav is missing" in problem and not skipped
    (images / "train/n02").rename(images / "train/n03")
    assert corrupt.separate(check("imagenet", images, num_classes=2, full=True))[1] == []
