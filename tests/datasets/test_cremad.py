"""CREMA-D: what a sample is, the same crop for all frames, disjoint splits, every fault named."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from m2pt.datasets import cremad
from m2pt.datasets.augmentations import FrameAugmentation
from m2pt.datasets.images import MEAN, STD
from m2pt.errors import InputError

INPUT = {"image_size": 16, "sample_rate": 4000, "seconds": 0.2, "n_fft": 64, "hop": 32}
RATE = 4000


def color(number: int, frame: int) -> tuple[int, int, int]:
    return (10 * number % 256, 40 * frame, 99)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write 24 and 6 clips of three frames in one color each, PNG data so that colors are exact."""
    draw = np.random.default_rng(0)
    (tmp_path / "CREMAD").mkdir()
    (tmp_path / "Audio").mkdir()
    for listed, count in (("train", 24), ("test", 6)):
        rows = [f"{listed}{number},{cremad.LABELS[number % 6]}\n" for number in range(count)]
        (tmp_path / cremad.LISTS[listed]).write_text("".join(rows))
        for number in range(count):
            sound = draw.uniform(-0.5, 0.5, 400)
            soundfile.write(tmp_path / f"Audio/{listed}{number}.wav", sound, RATE, subtype="PCM_16")
            folder = tmp_path / "Image-01-FPS" / f"{listed}{number}"
            folder.mkdir(parents=True)
            for frame in range(3):
                image = Image.new("RGB", (30, 20), color(number, frame))
                image.save(folder / f"{8 + frame}.jpg", format="PNG")  # 8, 9, 10: the last is the third
    return tmp_path


def opened(root: Path, split: str, **changes: Any) -> cremad.Reader:
    return cremad.Reader(root, split, num_classes=6, **{**INPUT, **changes})


def normalized(number: int, frame: int) -> np.ndarray:
    return (np.array(color(number, frame)) / 255 - MEAN) / STD


@pytest.mark.parametrize(("frames", "chosen"), [(1, [1]), (2, [0, 2]), (3, [0, 1, 2]), (4, [0, 0, 1, 2])])
def test_frames_are_spread_over_the_clip_in_the_order_of_their_numbers(
    root: Path, frames: int, chosen: list[int]
) -> None:
    reader = opened(root, "test", frames=frames)
    assert len(reader) == 6
    for number in range(6):
        inputs, label = reader[number]
        assert label == number and inputs["image"].shape == (3, frames, 16, 16)
        for place, frame in enumerate(chosen):
            pixels = inputs["image"][:, place].flatten(1).T.numpy()
            np.testing.assert_allclose(pixels, np.tile(normalized(number, frame), (256, 1)), atol=1e-5)


def test_the_spectrogram_is_that_of_the_repeated_sound(root: Path) -> None:
    sound, _ = soundfile.read(root / "Audio/test3.wav")
    audio = opened(root, "test")[3][0]["audio"]
    wave = np.pad(np.tile(sound, 2), 32)  # 0.2 s are 800 samples; half a window of zeros at both ends
    assert audio.shape == (1, 33, 26)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)
    for step in range(26):
        frame = wave[32 * step : 32 * step + 64] * window
        expected = np.log(np.abs(np.fft.rfft(frame)) + 1e-7)
        np.testing.assert_allclose(audio[0, :, step], expected, atol=1e-3)


def test_the_released_sizes(root: Path) -> None:
    inputs, _ = cremad.Reader(root, "test", num_classes=6)[0]
    assert inputs["audio"].shape == (1, 257, 188) and inputs["image"].shape == (3, 1, 224, 224)


def test_train_and_val_divide_the_training_list_whatever_its_order(root: Path) -> None:
    def colors(split: str, size: int) -> set[tuple[float, ...]]:
        reader = opened(root, split, held_out=0.25)
        assert len(reader) == size
        return {tuple(reader[i][0]["image"][:, 0, 0, 0].tolist()) for i in range(size)}

    train, val = colors("train", 18), colors("val", 6)
    assert not train & val and len(train | val) == 24
    path = root / cremad.LISTS["train"]
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert colors("val", 6) == val
    assert sorted(opened(root, "val", held_out=0.25)[i][1] for i in range(6)) == list(range(6))


def test_augmentation_crops_all_frames_alike_and_follows_seed_epoch_and_index(root: Path) -> None:
    gradient = np.zeros((20, 30, 3), np.uint8)
    gradient[..., 0] = np.arange(30) * 8
    gradient[..., 1] = np.arange(20)[:, None] * 12
    for frame in (8, 9, 10):
        Image.fromarray(gradient).save(root / f"Image-01-FPS/test0/{frame}.jpg", format="PNG")
    reader = opened(root, "test", frames=3, augmentation=FrameAugmentation())
    views = [reader[(epoch, 0)][0]["image"] for epoch in range(40)]
    slopes = set()
    for view in views:
        assert torch.equal(view[:, 0], view[:, 1]) and torch.equal(view[:, 0], view[:, 2])
        slopes.add(bool(view[0, 0, 8, 15] > view[0, 0, 8, 0]))
    assert slopes == {True, False}, "some are flipped"
    assert not torch.equal(views[0], views[1])
    plain = opened(root, "test", frames=3)
    assert torch.equal(plain[(0, 0)][0]["image"], plain[(9, 0)][0]["image"])
    keys = [(epoch, 0) for epoch in range(4)]
    batches = DataLoader(reader, sampler=keys, batch_size=None, num_workers=2)
    for (inputs, _), view in zip(batches, views, strict=False):
        assert torch.equal(inputs["image"], view)


def test_a_synthetic_batch_looks_like_a_real_one(root: Path) -> None:
    reader = opened(root, "train", frames=2, augmentation=FrameAugmentation())
    inputs, labels = default_collate([reader[i] for i in range(4)])
    made, made_labels = cremad.synthetic_batch(
        4,
        num_classes=6,
        input={**INPUT, "frames": 2},
        augmentation=FrameAugmentation(),
        device=torch.device("cpu"),
    )
    assert list(made) == list(inputs)
    for modality in inputs:
        assert made[modality].shape == inputs[modality].shape and made[modality].dtype == torch.float32
    assert made_labels.shape == labels.shape and made_labels.dtype == labels.dtype


def listing(text: str, listed: str = "test") -> Any:
    def apply(root: Path) -> None:
        path = root / cremad.LISTS[listed]
        path.write_text(path.read_text() + text)

    return apply


def cut(file: str) -> Any:
    def apply(root: Path) -> None:
        path = root / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return apply


def unlabeled(root: Path) -> None:
    path = root / cremad.LISTS["test"]
    path.write_text(path.read_text().replace("ANG", "SAD"))


FRAMES = "Image-01-FPS/test2"
FAULTS = {
    "no list": (lambda r: (r / "CREMAD/test.csv").unlink(), "CREMAD/test.csv: cannot be read"),
    "empty list": (lambda r: (r / "CREMAD/test.csv").write_text(""), "test.csv lists no clips"),
    "three columns": (listing("a,SAD,1\n"), "test.csv row 7 must be `item,label`"),
    "one column": (listing("a\n"), "test.csv row 7 must be `item,label`"),
    "header": (listing("item,label\n"), "test.csv row 7 must be `item,label`"),
    "unknown label": (listing("a,JOY\n"), "got 'a,JOY'"),
    "path": (listing("../a,SAD\n"), "got '../a,SAD'"),
    "twice": (listing("test1,HAP\n"), "test.csv has the duplicate entry test1"),
    "in both lists": (listing("train1,HAP\n"), "duplicate entry train1: "),
    "no sound and frames": (listing("a,SAD\n"), "Audio/a.wav is missing, but"),
    "no frames": (lambda r: shutil.rmtree(r / FRAMES), "test2 is missing or has no frame"),
    "empty folder": (lambda r: [p.unlink() for p in (r / FRAMES).iterdir()], "test2 is missing or has no"),
    "no sound": (lambda r: (r / "Audio/test2.wav").unlink(), "Audio/test2.wav is missing, but"),
    "truncated sound": (cut("Audio/test2.wav"), "Audio/test2.wav is truncated"),
    "no sound at all": (lambda r: soundfile.write(r / "Audio/test2.wav", [], RATE), "has no samples"),
    "truncated frame": (cut(f"{FRAMES}/9.jpg"), "9.jpg cannot be read as an image"),
    "other size": (lambda r: Image.new("RGB", (9, 9)).save(r / FRAMES / "9.jpg"), "9.jpg has another size"),
    "stray file": (lambda r: (r / FRAMES / "9.mp4").touch(), "test2 has 1 file that is not an image"),
    "empty class": (unlabeled, "class 5 (ANG) is empty"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_one_sentence_that_names_the_file(name: str, root: Path) -> None:
    assert cremad.check(root, num_classes=6, full=True) == cremad.check(root, num_classes=6, full=False) == []
    damage, message = FAULTS[name]
    damage(root)
    for full in (False, True):
        problems = cremad.check(root, num_classes=6, full=full)
        assert [message in problem for problem in problems].count(True) == 1, problems
        assert all(str(root) in problem and problem.endswith(".") for problem in problems)


def test_the_quick_check_decodes_a_sample_and_the_full_one_everything(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2pt.datasets.checks.QUICK_SAMPLE", 2)
    cut("Audio/test2.wav")(root)
    cut(f"{FRAMES}/9.jpg")(root)
    assert cremad.check(root, num_classes=6, full=False) == []
    assert len(cremad.check(root, num_classes=6, full=True)) == 2


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    with pytest.raises(InputError, match="has 6 classes, not num_classes = 5"):
        cremad.Reader(root, "train", num_classes=5)
    with pytest.raises(InputError, match=r"held_out = 0\.01 leaves no sample for val"):
        opened(root, "val", held_out=0.01)
    reader = opened(root, "test")
    FAULTS["no frames"][0](root)
    with pytest.raises(InputError, match="test2 is missing or has no frame"):
        reader[2]
    FAULTS["unknown label"][0](root)
    with pytest.raises(InputError, match="got 'a,JOY'"):
        opened(root, "test")


def test_the_lists_are_read_as_people_have_them_and_the_files_are_all_there_are(root: Path) -> None:
    path = root / cremad.LISTS["test"]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert cremad.check(root, num_classes=6, full=True) == []
    assert cremad.counts(root) == {"train": 24, "val": 0, "test": 6}, "0.1 of 4 is none"
    assert cremad.classes(root) == ["NEU", "HAP", "SAD", "FEA", "DIS", "ANG"]
    assert set(cremad.files(root)) == {path for path in root.rglob("*") if path.is_file()}
