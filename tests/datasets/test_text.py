"""Text: windows of bytes by definition, every problem, and a miniature that is the same each time."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from m2pt.datasets import text
from m2pt.datasets.augmentations import TextAugmentation
from m2pt.datasets.miniature import text as miniature
from m2pt.datasets.miniature.staging import RECORD
from m2pt.errors import InputError

TRAIN = bytes(range(120)) * 5
VAL = "Ünïcödé, and some letters more".encode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "train.txt").write_bytes(TRAIN)
    (tmp_path / "val.txt").write_bytes(VAL)
    return tmp_path


def reader(root: Path, split: str = "train", **settings: object) -> text.Reader:
    return text.Reader(root, split, **{"num_classes": 256, "length": 7, **settings})


def as_bytes(window: torch.Tensor) -> bytes:
    return bytes(window.tolist())


def test_evaluation_windows_are_the_file_cut_back_to_back(root: Path) -> None:
    windows = reader(root, "val")
    assert len(windows) == len(VAL) // 7
    assert [as_bytes(windows[i][0]) for i in range(len(windows))] == [
        VAL[i : i + 7] for i in range(0, 7 * (len(VAL) // 7), 7)
    ]
    window, label = windows[(9, 1)]
    assert (window.dtype, window.shape, label) == (torch.int64, (7,), 0)


def test_training_windows_begin_anywhere(root: Path) -> None:
    (root / "train.txt").write_bytes(bytes(range(12)))
    windows = reader(root, augmentation=TextAugmentation())
    assert len(windows) == 1
    starts = [int(windows[(epoch, 0)][0][0]) for epoch in range(200)]
    assert set(starts) == set(range(6)), "each of the six places, the first and the last included"
    assert as_bytes(windows[(0, 0)][0]) == bytes(range(starts[0], starts[0] + 7))
    assert as_bytes(reader(root, augmentation=TextAugmentation(random_offset=False))[(5, 0)][0]) == bytes(
        range(7)
    )


def test_a_window_depends_on_seed_epoch_and_index_alone(root: Path) -> None:
    keys = [(epoch, index) for epoch in (0, 3) for index in (5, 1, 2)]
    alone = [reader(root, augmentation=TextAugmentation())[key][0] for key in keys]
    loader = DataLoader(
        reader(root, augmentation=TextAugmentation()), sampler=keys, batch_size=None, num_workers=2
    )
    for (window, _), expected in zip(loader, alone, strict=True):
        assert torch.equal(window, expected)
    assert not torch.equal(alone[0], alone[3]), "another epoch, another window"
    assert not torch.equal(alone[0], reader(root, augmentation=TextAugmentation(), seed=1)[keys[0]][0])


def test_nothing_of_the_file_is_held(root: Path) -> None:
    windows = reader(root, augmentation=TextAugmentation())
    windows[0]
    assert len(pickle.dumps(windows)) < len(TRAIN)


def test_the_dataset_is_described(root: Path) -> None:
    assert text.check(root, num_classes=256, full=True) == []
    assert text.counts(root) == {"train": 600, "val": len(VAL)}
    assert set(text.files(root)) == set(root.iterdir())
    assert [int(name, 16) for name in text.classes(root)] == list(range(256))


@pytest.mark.parametrize(
    ("damage", "full", "message"),
    [
        (lambda r: (r / "val.txt").unlink(), False, "val.txt cannot be read: No such file"),
        (lambda r: (r / "train.txt").write_bytes(b""), False, "train.txt is empty"),
        (lambda r: (r / "val.txt").write_bytes(b"ab\xffcd"), True, "val.txt is not UTF-8 at byte 2"),
        (lambda r: (r / "val.txt").write_bytes(VAL + b"\xe2\x82"), True, f"at byte {len(VAL)}"),
    ],
)
def test_every_problem_is_named(root: Path, damage, full: bool, message: str) -> None:
    (root / "train.txt").write_bytes(b"plain")
    damage(root)
    (problem,) = text.check(root, num_classes=256, full=full)
    assert message in problem
    assert not full or text.check(root, num_classes=256, full=False) == []


@pytest.mark.parametrize("chunk", [1, 2, 3, 1 << 20])
def test_characters_across_chunks_are_no_problem(
    root: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_CHUNK", chunk)
    good = "a€b𝄞c".encode()
    (root / "train.txt").write_bytes(good)
    assert text.check(root, num_classes=256, full=True) == []
    (root / "train.txt").write_bytes(good + b"\xe2\x82X")
    (problem,) = text.check(root, num_classes=256, full=True)
    assert f"at byte {len(good)}" in problem


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    with pytest.raises(InputError, match="256 classes, the byte values, not num_classes = 255"):
        reader(root, num_classes=255)
    with pytest.raises(InputError, match=f"val.txt has {len(VAL)} bytes, fewer than length = 100"):
        reader(root, "val", length=100)
    (root / "train.txt").unlink()
    with pytest.raises(InputError, match=r"train.txt cannot be read"):
        reader(root)


SOURCE = '''
"""A short title

The first paragraph goes over two lines and mentions :class:`~package.module.Thing`
with some ``markup`` in it.

>>> doctest = "This is a sentence that only looks like prose, and it is code."
"""
raise RuntimeError("imported")

class Thing:
    """Hold the results that a very long computation has given.

    Parameters
    ----------
    alpha : float, default=1.0
        The strength of the regularization, which must be positive or zero.

    x : array
        Data.

    .. versionadded:: 1.0
       An indented remark about the version in which it was added.
    References
    ----------
    .. [1] A. Author (2001). A title of a paper that nobody wants to read.

    See Also
    --------
    Other : The description of another thing that is like this one.

    Notes
    -----
    Right below an underline the prose of a section begins.
    """

    async def method(self):
        """See the `guide <https://example.org/some/place>`_ to learn what this method is for."""
        "Not a docstring, although it is a sentence of more than eight words."
'''


def test_paragraphs_are_the_prose_of_docstrings() -> None:
    assert list(miniature.paragraphs(SOURCE)) == [
        "The first paragraph goes over two lines and mentions package.module.Thing with some markup in it.",
        "Hold the results that a very long computation has given.",
        "The strength of the regularization, which must be positive or zero.",
        "An indented remark about the version in which it was added.",
        "Right below an underline the prose of a section begins.",
        "See the guide to learn what this method is for.",
    ]


class Installed:
    """Stands for the installed package: four modules, one of them vendored and one a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("a.py", "b/c.py", "externals/d.py", "b/tests/e.py"):
            path = folder / "sklearn" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            sentence = f"This module is called {path.stem} and says so in a sentence."
            path.write_text(f'"""{sentence}\n\nThis sentence is in each of the modules, word for word."""\n')

    def locate_file(self, name: str) -> Path:
        return self.folder / name


def test_modules_are_read_not_imported_and_none_is_in_two_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Installed(tmp_path)
    monkeypatch.setattr(miniature, "distribution", lambda name: installed)
    assert miniature.module_names(tmp_path / "sklearn") == ["a.py", "b/c.py"]
    (tmp_path / "sklearn/a.py").write_text(SOURCE)
    miniature.build(tmp_path / "text", seed=0, train=10, val=10)
    sources = json.loads((tmp_path / "text" / RECORD).read_text())["sources"]
    assert sorted(sources["train"] + sources["val"]) == ["a.py", "b/c.py"]
    with pytest.raises(InputError, match="less prose than val = 10 and train = 10000 bytes"):
        miniature.build(tmp_path / "more", seed=0, train=10000, val=10)
    assert not (tmp_path / "more").exists()


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("miniature") / "text"
    miniature.build(root, seed=0)
    return root


def test_the_same_seed_gives_the_same_bytes(prose: Path, tmp_path: Path) -> None:
    miniature.build(tmp_path / "again", seed=0)
    assert {path.name for path in prose.iterdir()} == {"train.txt", "val.txt", RECORD}
    for path in prose.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    miniature.build(tmp_path / "again", seed=1)
    assert (tmp_path / "again/val.txt").read_bytes() != (prose / "val.txt").read_bytes()


def test_the_splits_share_neither_modules_nor_paragraphs(prose: Path) -> None:
    sources = json.loads((prose / RECORD).read_text())["sources"]
    assert sources["train"] and sources["val"] and not set(sources["train"]) & set(sources["val"])
    lines = {split: (prose / f"{split}.txt").read_text().splitlines() for split in ("train", "val")}
    together = lines["train"] + lines["val"]
    assert len(set(together)) == len(together)


def test_the_miniature_is_english_prose_of_the_size_asked_for(prose: Path) -> None:
    assert text.check(prose, num_classes=256, full=True) == []
    for split, size in (("train", 400_000), ("val", 40_000)):
        content = (prose / f"{split}.txt").read_bytes()
        assert size <= len(content) < size + 2000
        letters = np.isin(np.frombuffer(content, np.uint8), np.frombuffer(b"etaoinshrdlu ", np.uint8))
        assert 0.75 < letters.mean() < 0.9, "about 80 % in English"
        assert not any(mark in content for mark in (b">>>", b"`", b"--", b"::", b" : ", b"  "))
