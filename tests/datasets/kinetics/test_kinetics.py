"""The Kinetics reader: frames found by number in real files, clips of them, and every problem."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numbered_videos import numbers, pixels, write_video

from m2pt.datasets import kinetics
from m2pt.datasets.augmentations import ClipCropAugmentation, MultiView
from m2pt.datasets.video import clip_frames, count_starts, read_frames
from m2pt.datasets.video_views import central_square
from m2pt.errors import InputError


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / "video.mp4")
    return tmp_path / "video.mp4"


@pytest.mark.parametrize("wanted", [[0], [59], [0, 1, 2], [14, 15, 16], [31, 35, 39, 43], [7, 7, 50, 59, 59]])
def test_frames_are_found_by_number(video: Path, wanted: list[int]) -> None:
    frames = read_frames(video, lambda length: wanted)
    assert frames.shape == (len(wanted), 48, 48, 3) and frames.dtype == np.uint8
    assert numbers(frames) == wanted


def test_sampling_is_that_of_videomae() -> None:
    assert clip_frames(3, 4, 2, 60) == [3, 5, 7, 9]
    assert clip_frames(0, 4, 4, 10) == [0, 4, 8, 9]
    assert clip_frames(0, 3, 4, 1) == [0, 0, 0]
    assert [count_starts(16, 4, length) for length in (10, 63, 64, 65, 300)] == [1, 1, 1, 2, 237]


def test_evaluation_takes_the_middle_and_the_central_square(root: Path) -> None:
    reader = kinetics.Reader(root, "val", num_classes=2, image_size=24, frames=8, stride=4)
    clip, label = reader[1]
    assert clip.shape == (3, 8, 24, 24) and clip.dtype == torch.float32 and label == 1
    assert numbers(pixels(clip)) == [14 + 4 * step for step in range(8)]
    columns = torch.arange(48).expand(2, 3, 32, 48)
    assert central_square(columns)[0, 0, 0].tolist() == list(range(8, 40))
    assert central_square(columns.transpose(2, 3))[0, 0, :, 0].tolist() == list(range(8, 40))


def test_training_takes_every_start(root: Path) -> None:
    reader = kinetics.Reader(
        root,
        "train",
        num_classes=2,
        image_size=48,
        frames=2,
        stride=28,
        augmentation=ClipCropAugmentation(crop_scales=(1,)),
    )
    starts = set()
    for epoch in range(60):
        clip = reader[(epoch, 0)][0]
        first, second = numbers(pixels(clip))
        assert second == first + 28
        starts.add(first)
    assert starts == {0, 1, 2, 3, 4}


def test_a_short_video_repeats_its_last_frame(root: Path) -> None:
    write_video(root / "some videos/val0.mp4", range(5))
    reader = kinetics.Reader(root, "val", num_classes=2, image_size=16, frames=16, stride=4)
    assert reader[0][0].shape == (3, 16, 16, 16)
    assert numbers(read_frames(root / "some videos/val0.mp4", lambda n: clip_frames(0, 4, 2, n))) == [
        0,
        2,
        4,
        4,
    ]


def test_a_sound_dataset_has_no_problems_and_is_described(root: Path) -> None:
    assert kinetics.check(root, num_classes=2, full=True) == []
    assert kinetics.classes(root) == ["0", "1"]
    assert kinetics.counts(root) == {"train": 2, "val": 2}
    assert sorted(kinetics.files(root)) == sorted(path for path in root.rglob("*") if path.is_file())
    (root / "test.csv").unlink()
    assert kinetics.check(root, num_classes=2, full=False) == []


def truncate(path: Path, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"my dir/v 1.mp4" 3\n', [("my dir/v 1.mp4", 3)]),
        ("my dir/v 1.mp4 3\n", [("my dir/v 1.mp4", 3)]),
        ('"a ""b"".mp4" 1\n"c.mp4" "2"', [('a "b".mp4', 1), ("c.mp4", 2)]),
        ('my"quote.mp4 1\n', [('my"quote.mp4', 1)]),
        ('"  spaces .mp4" 0\n', [("  spaces .mp4", 0)]),
        ("a.mp4 1 \r\n\r\nb.mp4 02\r\n", [("a.mp4", 1), ("b.mp4", 2)]),
        ("a.mp4 1\rb.mp4 2", [("a.mp4", 1), ("b.mp4", 2)]),
        ("\ufeffa.mp4 1\n", [("a.mp4", 1)]),
        ("/data/a.mp4 1\n../b.mp4 1\n./c.mp4 1\n", [("/data/a.mp4", 1), ("../b.mp4", 1), ("./c.mp4", 1)]),
        ("a\u2028b\x0cc.mp4 1\n", [("a\u2028b\x0cc.mp4", 1)]),
    ],
)
def test_lists_are_read_as_pandas_reads_them(tmp_path: Path, text: str, expected: list) -> None:
    path = tmp_path / "train.csv"
    path.write_text(text, newline="")
    (tmp_path / "val.csv").write_text("v.mp4 0\n")
    assert list(kinetics.files(tmp_path))[2:-1] == [tmp_path / name for name, _ in expected]
    assert kinetics.classes(tmp_path) == sorted({"0", *(str(label) for _, label in expected)})
    if not text.startswith("my dir"):  # pandas takes the spaces of an unquoted path for separators
        rows = pd.read_csv(path, header=None, delimiter=" ").iloc[:, :2]
        assert [tuple(row) for row in rows.values.tolist()] == expected


@pytest.mark.parametrize(
    "line",
    [
        "a.mp4\t1",
        "a.mp4  1",
        " a.mp4 1",
        "a.mp4 -1",
        "a.mp4 +1",
        "a.mp4 1.0",
        "a.mp4 \u00b3",
        "a.mp4 \u0663",
        "a.mp4 nan",
        "a.mp4 1_0",
        "a.mp4 1 # one",
        "# a comment",
        "path label",
        '"a.mp4 1',
        '"a"b.mp4 1',
        '"a.mp4" 1 2',
        '"" 1',
        " 1",
        "1",
        "a\0b.mp4 1",
        "a.mp4 " + "1" * 5000,
    ],
)
def test_other_lines_are_named(root: Path, line: str) -> None:
    with (root / "train.csv").open("a") as file:
        file.write(line + "\n")
    (problem,) = kinetics.check(root, num_classes=2, full=False)
    assert problem.startswith(f"{root / 'train.csv'} line 3 must be `path label`")
    assert problem.endswith(f"got {line[:200]!r}.")
    with pytest.raises(InputError, match="line 3"):
        kinetics.counts(root)


def test_lists_of_other_bytes_or_kinds_are_named(root: Path) -> None:
    (root / "train.csv").write_bytes(b"a.mp4 1\ncaf\xe9.mp4 0\n")
    (root / "test.csv").unlink()
    (root / "test.csv").symlink_to("nowhere.csv")
    (root / "val.csv").unlink()
    (root / "val.csv").mkdir()
    problems = kinetics.check(root, num_classes=2, full=False)
    assert any("train.csv line 2 is not UTF-8" in problem for problem in problems)
    assert any("test.csv: cannot be read" in problem for problem in problems)
    assert any("val.csv: is a folder" in problem for problem in problems)


def test_a_video_that_is_listed_twice_is_named(root: Path) -> None:
    with (root / "val.csv").open("a") as file:
        file.write('"some videos/val0.mp4" 1\n')
    (problem,) = kinetics.check(root, num_classes=2, full=False)
    assert "val.csv line 3 duplicates some videos/val0.mp4 of line 1" in problem


def test_a_training_list_may_repeat_a_video_with_its_label(root: Path) -> None:
    first = (root / "train.csv").read_text().splitlines()[0]
    with (root / "train.csv").open("a") as file:
        file.write(f"{first}\n")
    assert kinetics.check(root, num_classes=2, full=False) == []
    with (root / "train.csv").open("a") as file:
        file.write(f"{first[:-1]}{1 - int(first[-1])}\n")
    (problem,) = kinetics.check(root, num_classes=2, full=False)
    assert "of line 1: keep one" in problem


def test_labels_of_the_test_list_may_be_placeholders(root: Path) -> None:
    names = [line.rpartition(" ")[0] for line in (root / "val.csv").read_text().splitlines()]
    (root / "test.csv").write_text("".join(f"{name} 0\n" for name in names))
    assert kinetics.check(root, num_classes=2, full=False) == []


@pytest.mark.parametrize("relative", [True, False])
def test_absolute_paths_in_lists_are_read(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (root / "some videos/val1.mp4").rename(elsewhere / "v 1.mp4")
    lines = f'"some videos/val0.mp4" 0\n"{elsewhere / "v 1.mp4"}" 1\n'
    for name in ("val.csv", "test.csv"):
        (root / name).write_text(lines)
    monkeypatch.chdir(root.parent)
    where = Path(root.name) if relative else root
    assert kinetics.check(where, num_classes=2, full=True) == []
    clip, label = kinetics.Reader(where, "val", num_classes=2, image_size=48, frames=2, stride=28)[1]
    assert label == 1 and numbers(pixels(clip)) == [2, 30]
    assert elsewhere / "v 1.mp4" in set(kinetics.files(where))


def empty_class(root: Path, names: str) -> None:
    (root / "val.csv").write_text("some videos/val0.mp4 0\n")
    (root / "classes.txt").write_text(names)


@pytest.mark.parametrize(
    ("damage", "full", "message"),
    [
        (lambda r: (r / "val.csv").unlink(), False, "val.csv: cannot be read"),
        (lambda r: (r / "train.csv").write_text(""), False, "train.csv is empty"),
        (lambda r: (r / "train.csv").write_text("a.mp4\n"), False, "got 'a.mp4'."),
        (lambda r: (r / "train.csv").write_text("a.mp4 -1\n"), False, "got 'a.mp4 -1'."),
        (lambda r: (r / "test.csv").write_text("a.mp4,1\n"), False, "got 'a.mp4,1'."),
        (lambda r: (r / "train.csv").write_text("a.mp4 2\n"), False, "label must be 0 to 1, got 2"),
        (lambda r: (r / "val.csv").write_text("some videos/val0.mp4 0\n"), False, "class 1 is empty"),
        (lambda r: empty_class(r, "zero\none\n"), False, "class 1 (one) is empty"),
        (lambda r: empty_class(r, "zero\none\ntwo\n"), False, "class 1 is empty"),
        (lambda r: (r / "some videos/val1.mp4").unlink(), False, "val1.mp4 is missing, but"),
        (lambda r: truncate(r / "some videos/val1.mp4", 0.5), True, "val1.mp4 cannot be read as a video"),
        (lambda r: truncate(r / "some videos/val1.mp4", 0), True, "val1.mp4 cannot be read as a video"),
        (
            lambda r: (r / "some videos/val1.mp4").write_text("no video"),
            True,
            "val1.mp4 cannot be read as a video",
        ),
    ],
)
def test_every_problem_is_named(root: Path, damage, full: bool, message: str) -> None:
    damage(root)
    problems = kinetics.check(root, num_classes=2, full=full)
    assert any(message in problem for problem in problems), problems
    assert not full or kinetics.check(root, num_classes=2, full=False) == []


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    with pytest.raises(InputError, match="label must be 0 to 0, got 1"):
        kinetics.Reader(root, "train", num_classes=1, image_size=16, frames=16, stride=4)
    with pytest.raises(InputError, match="give either augmentation"):
        both = {"augmentation": ClipCropAugmentation(), "views": MultiView()}
        kinetics.Reader(root, "train", num_classes=2, image_size=16, frames=16, stride=4, **both)
    (root / "some videos/train0.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"train0.mp4 cannot be read as a video: Invalid data"):
        kinetics.Reader(root, "train", num_classes=2, image_size=16, frames=16, stride=4)[0]
    (root / "some videos/train1.mp4").unlink()
    with pytest.raises(InputError, match=r"train1.mp4 cannot be read as a video: No such file"):
        kinetics.Reader(root, "train", num_classes=2, image_size=16, frames=16, stride=4)[1]
