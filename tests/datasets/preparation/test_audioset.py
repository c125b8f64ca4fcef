"""AudioSet from its official lists and a folder of clips: names in all forms, missing and broken clips."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from m2pt.commands import main
from m2pt.config.architecture import AudioInput
from m2pt.datasets import audioset
from m2pt.datasets.preparation.audioset import INPUT, MEAN, STD, prepare
from m2pt.datasets.preparation.spectrograms import measure
from m2pt.errors import InputError

COMMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=5, num_segs=5, num_unique_labels=2, num_positive_labels=7
# YTID, start_seconds, end_seconds, positive_labels
"""
FILES = {
    "class_labels_indices.csv": 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00003,"Male, singing"\n',
    "balanced_train_segments.csv": COMMENTS
    + """--4gQARaEJE, 0.000, 10.000, "/m/09x0r,/t/dd00003"
Yaaaaaaaaa_, 30.000, 40.000, "/m/09x0r"
bbbbbbbb_30, 30.000, 40.000, "/t/dd00003"
ccccccccccc, 120.000, 130.000, "/m/09x0r"
ddddddddddd, 30.000, 40.000, "/m/09x0r"
gone_______, 30.000, 40.000, "/m/09x0r"
""",
    "unbalanced_train_segments.csv": COMMENTS + 'eeeeeeeeeee, 20.000, 30.000, "/m/09x0r"\n',
    "eval_segments.csv": COMMENTS
    + """fffffffffff, 30.000, 40.000, "/m/09x0r"
ggggggggggg, 30.000, 40.000, "/t/dd00003"
""",
}
CLIPS = [
    "train/Y--4gQARaEJE.wav",
    "train/Yaaaaaaaaa_.flac",
    "train/deeper/YbbbbbbbbXXX.wav",  # of no list
    "train/deeper/Ybbbbbbbb_30.wav",
    "train/ccccccccccc_120.000_130.000.wav",
    "train/ddddddddddd_30000.wav",
    "train/eeeeeeeeeee_20.wav",
    "eval/Yfffffffffff_30.000.WAV",
    "eval/ggggggggggg_30_40.wav",
]
RATE = 16000


def sound(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    for number, name in enumerate(CLIPS):
        path = tmp_path / "downloads" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound(0.2, number), RATE)
    for name, text in FILES.items():
        (tmp_path / "downloads" / name).write_text(text)
    return tmp_path / "downloads"


def entries(path: Path) -> list[tuple[str, str]]:
    return [(entry["wav"], entry["labels"]) for entry in json.loads(path.read_text())["data"]]


def test_the_lists_of_the_clips_that_are_there(downloads: Path) -> None:
    assert prepare(downloads, downloads, statistics=0) == [
        "train: 5 of 6 clips; 1 missing, 0 unreadable: see left_out.txt",
        "eval: 2 of 2 clips",
    ]
    assert entries(downloads / "train.json") == [
        ("train/Y--4gQARaEJE.wav", "/m/09x0r,/t/dd00003"),
        ("train/Yaaaaaaaaa_.flac", "/m/09x0r"),
        ("train/deeper/Ybbbbbbbb_30.wav", "/t/dd00003"),
        ("train/ccccccccccc_120.000_130.000.wav", "/m/09x0r"),
        ("train/ddddddddddd_30000.wav", "/m/09x0r"),
    ]
    assert entries(downloads / "eval.json") == [
        ("eval/Yfffffffffff_30.000.WAV", "/m/09x0r"),
        ("eval/ggggggggggg_30_40.wav", "/t/dd00003"),
    ]
    assert (downloads / "left_out.txt").read_text() == "train: gone_______ from 30 s is missing.\n"
    assert audioset.check(downloads, num_classes=2, full=True) == []
    reader = audioset.Reader(downloads, "val", num_classes=2, **INPUT, mean=MEAN, std=STD)
    assert [reader[index][1].tolist() for index in range(2)] == [[1, 0], [0, 1]]


def test_two_roots_share_the_clips(downloads: Path, tmp_path: Path) -> None:
    for name, unbalanced, clips in (("20k", False, 5), ("2m", True, 6)):
        prepare(downloads, tmp_path / name, unbalanced=unbalanced, statistics=0)
        listed = entries(tmp_path / name / "train.json")
        assert len(listed) == clips and listed[0][0] == f"{downloads}/train/Y--4gQARaEJE.wav"
        assert audioset.check(tmp_path / name, num_classes=2, full=True) == []
    prepare(downloads, tmp_path / "20k", statistics=0)  # again: everything is there


def test_a_clip_of_another_time_of_the_video_is_not_taken(downloads: Path) -> None:
    path = downloads / "train/ccccccccccc_120.000_130.000.wav"
    path.rename(path.with_name("ccccccccccc_12.000_22.000.wav"))
    assert "train: 4 of 6 clips; 2 missing" in prepare(downloads, downloads, statistics=0)[0]


def test_clips_that_cannot_be_read_are_left_out(downloads: Path, tmp_path: Path) -> None:
    broken = downloads / "train/deeper/Ybbbbbbbb_30.wav"
    broken.write_bytes(broken.read_bytes()[:1000])
    (downloads / "train/Yaaaaaaaaa_.flac").unlink()
    (downloads / "train/Yaaaaaaaaa_.flac").symlink_to("nowhere")
    with pytest.raises(
        InputError, match=r"Yaaaaaaaaa_\.flac: cannot be read.* give --check, which leaves such clips out"
    ):
        prepare(downloads, tmp_path / "root", statistics=9)
    prepare(downloads, tmp_path / "checked", check=True, statistics=9)
    assert len(entries(tmp_path / "checked/train.json")) == 3
    left_out = (tmp_path / "checked/left_out.txt").read_text().splitlines()
    assert left_out[0] == "train: gone_______ from 30 s is missing."
    assert left_out[1].startswith(f"train: {downloads}/train/Yaaaaaaaaa_.flac cannot be read")
    assert left_out[2].startswith(f"train: {broken} is truncated")


def test_the_statistics_are_those_of_all_values_before_the_normalization(downloads: Path) -> None:
    prepare(downloads, downloads, statistics=0)
    reader = audioset.Reader(downloads, "train", num_classes=2, **INPUT, mean=MEAN, std=STD)
    values = np.stack([reader[index][0].numpy() for index in range(5)]).astype(np.float64) * 2 * STD + MEAN
    clips, mean, std = measure(downloads, 100, **INPUT)
    assert clips == 5
    np.testing.assert_allclose([mean, std], [values.mean(), values.std()], rtol=1e-5)
    first, last = values[0], values[4]
    clips, mean, std = measure(downloads, 2, **INPUT)
    assert clips == 2
    np.testing.assert_allclose([mean, std], [np.mean([first, last]), np.std([first, last])], rtol=1e-5)


def test_where_to_put_them_is_said_if_they_differ(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mean, std = measure_of(downloads)
    *_, line = prepare(downloads, downloads, statistics=5)
    assert line == (
        f"spectrograms of 5 training clips: mean {mean:.4f}, standard deviation {std:.4f} (AST and AudioMAE: "
        "-4.2677, 4.5690). To train without published weights, set in your config modalities: audio: input: "
        f"{{mean: {mean:.4f}, std: {std:.4f}}}"
    )
    monkeypatch.setattr("m2pt.datasets.preparation.audioset.MEAN", mean + 0.04)
    monkeypatch.setattr("m2pt.datasets.preparation.audioset.STD", std - 0.04)
    *_, line = prepare(downloads, downloads, statistics=5)
    assert "set in your config" not in line


def measure_of(root: Path) -> tuple[int, float, float]:
    prepare(root, root, statistics=0)
    return measure(root, 5, **INPUT)


def test_the_input_is_that_of_the_config() -> None:
    assert AudioInput(frames=1024).model_dump() == {**INPUT, "mean": MEAN, "std": STD}


def test_the_command(downloads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "csv").mkdir()
    for name in FILES:
        (downloads / name).rename(tmp_path / "csv" / name)
    root = tmp_path / "root"
    command = ["data", "prepare", "audioset", str(downloads), str(root), "--num-classes", "2", "--check"]
    assert main([*command, "--unbalanced", "--statistics", "3", "--annotations", str(tmp_path / "csv")]) == 0
    out = capsys.readouterr().out
    assert "train: 6 of 7 clips; 1 missing" in out and "spectrograms of 3 training clips: mean" in out
    assert "no problems found in this audioset dataset of 2 classes" in out
    assert main(command) == 2
    assert f"{downloads}/class_labels_indices.csv: cannot be read" in capsys.readouterr().err
    assert main([*command, "--statistics", "-1"]) == 2
    assert "--statistics -1: must be an integer >= 0." in capsys.readouterr().err


def test_a_clip_that_is_there_twice_is_named(downloads: Path) -> None:
    soundfile.write(downloads / "eval/fffffffffff.flac", sound(0.2, 0), RATE)
    with pytest.raises(
        InputError, match=r"Yfffffffffff_30\.000\.WAV and .*fffffffffff\.flac are the same clip"
    ):
        prepare(downloads, downloads)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "eval_segments.csv",
            "a, 0.000, 10.000, /m/a,/m/b\n",
            "eval_segments.csv line 1 must be `YTID, start",
        ),
        ("eval_segments.csv", "a, soon, 10.000, /m/a\n", "eval_segments.csv line 1 must be"),
        (
            "eval_segments.csv",
            COMMENTS + 'a, 0, 10, "' + "x" * 200_000,
            "cannot be read as a CSV file: field larger",
        ),
        (
            "eval_segments.csv",
            FILES["eval_segments.csv"] + "hhhhhhhhhhh, 30.000, 40.000, /m/none\n",
            "eval_segments.csv line 6 has the label '/m/none', which is not in class_labels_indices.csv",
        ),
        (
            "eval_segments.csv",
            FILES["eval_segments.csv"] + "hhhhhhhhhhh, 30.0",
            "line 6 must be `YTID, ",
        ),
        ("eval_segments.csv", "hhhhhhhhhhh, 9, nan, /m/09x0r", "line 1 must be `YTID, start"),
        ("eval_segments.csv", "=NAME, 9, 19, /m/09x0r", "with an id of 11 characters, got '=NAME, 9"),
        (
            "eval_segments.csv",
            FILES["eval_segments.csv"] + 'ccccccccccc, 7.000, 17.000, "/m/09x0r"\n',
            "1 video is listed for training and in {downloads}/eval_segments.csv, such as ccccccccccc",
        ),
        (
            "eval_segments.csv",
            FILES["eval_segments.csv"] + 'fffffffffff, 30.000, 40.000, "/t/dd00003"\n',
            "{downloads}/eval/Yfffffffffff_30.000.WAV is the file of two clips: eval lists ffffffff",
        ),
        (
            "balanced_train_segments.csv",
            FILES["balanced_train_segments.csv"] + '--4gQARaEJE, 50.000, 60.000, "/m/09x0r"\n',
            "{downloads}/train/Y--4gQARaEJE.wav is the file of two clips: "
            "train lists --4gQARaEJE from 0 s, and train lists --4gQARaEJE from 50 s.",
        ),
        (
            "class_labels_indices.csv",
            "index,mid,display_name\n0,/m/09x0r,Speech\n",
            "{downloads}/class_labels_indices.csv has 1 class, not num_classes = 2: give the official file",
        ),
        (
            "eval_segments.csv",
            COMMENTS + 'fffffffffff, 30.000, 40.000, "/m/09x0r"\nhhhhhhhhhhh, 3, 4, "/t/dd00003"\n',
            "{downloads} has no clip of eval of the 1 class /t/dd00003: get some, or remove them from",
        ),
        (
            "balanced_train_segments.csv",
            FILES["balanced_train_segments.csv"] + 'Yaaaaaaaaa_, 30.000, 40.000, "/t/dd00003"\n',
            "Yaaaaaaaaa_ from 30 s, and train lists Yaaaaaaaaa_ from 30 s with another label. Give",
        ),
        ("class_labels_indices.csv", "index,mid\n", "must begin with 'index,mid,display_name'"),
        (
            "eval.json",
            "mine",
            "{downloads} already has eval.json with another content: move the old one away",
        ),
        ("eval_segments.csv", COMMENTS, "has no clip of eval_segments.csv: names must be <YTID>.wav"),
    ],
)
def test_wrong_lists_are_named_before_a_clip_is_read(
    name: str, text: str, message: str, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2pt.datasets.preparation.splits.unreadable", read_nothing)
    (downloads / name).write_text(text)
    with pytest.raises(InputError) as raised:
        prepare(downloads, downloads, num_classes=2, check=True)
    assert message.format(downloads=downloads) in str(raised.value)
    assert (downloads / name).read_text() == text and not (downloads / "train.json").exists()


def read_nothing(*arguments: object) -> None:
    raise AssertionError("a clip is read")


def test_a_segment_that_is_listed_twice_alike_is_one_clip(downloads: Path) -> None:
    with (downloads / "balanced_train_segments.csv").open("a") as file:
        file.write('--4gQARaEJE, 0.000, 10.000, "/m/09x0r,/t/dd00003"\n')
    assert "train: 5 of 6 clips" in prepare(downloads, downloads, statistics=0)[0]


def test_a_folder_without_clips_is_named(downloads: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no file that ends in \.wav, \.flac"):
        prepare(tmp_path / "empty", tmp_path / "root", annotations=downloads)
