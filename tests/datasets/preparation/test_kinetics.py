"""Kinetics from a folder of videos: labels, names in all forms, missing, broken and repeated videos."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from numbered_videos import write_video

from m2pt.commands import main
from m2pt.datasets import kinetics
from m2pt.datasets.preparation import readability
from m2pt.datasets.preparation.kinetics import prepare
from m2pt.errors import InputError

ANNOTATIONS = {
    "train.csv": """label,youtube_id,time_start,time_end,split,is_cc
zumba,aaaaaaaaaa0,5,15,train,0
"petting animal (not cat)",-aaaaaaaa_1,1002,1012,train,0
abseiling,aaaaaaaaaa2,0,10,train,0
abseiling,gone_______,0,10,train,0
""",
    "validate.csv": """label,youtube_id,time_start,time_end,split
zumba,bbbbbbbbbb0,5,15,validate
petting animal (not cat),bbbbbbbbbb1,7,17,validate
abseiling,bbbbbbbbbb2,0,10,validate
""",
    "test.csv": "youtube_id,time_start,time_end,split\nccccccccccc,1,11,test\n",
    "my own.csv": "a,b\n1,2\n",
}
LABELS = {"abseiling": 0, "petting animal (not cat)": 1, "zumba": 2}

VIDEOS = [
    "train/aaaaaaaaaa0_000005_000015.mp4",
    "train/-aaaaaaaa_1_001002_001012.mp4",
    "train/aaaaaaaaaa2_000000_000010.mp4",
    "val/bbbbbbbbbb0_000005_000015.mp4",
    "val/some folder/bbbbbbbbbb1_000007_000017.mkv",
    "val/bbbbbbbbbb2.mp4",
]


def write_annotations(folder: Path, annotations: Mapping[str, str] = ANNOTATIONS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in annotations.items():
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    write_video(path, range(5))
    return path.read_bytes()


@pytest.fixture
def videos(tmp_path: Path, video: bytes) -> Path:
    """A folder of videos, with their annotations in `annotations`."""
    for name in VIDEOS:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video)
    write_annotations(tmp_path / "videos" / "annotations")
    return tmp_path / "videos"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_lists_of_annotated_videos(videos: Path) -> None:
    assert prepare(videos, videos) == [
        "3 classes",
        "train: 3 of 4 clips; 1 missing, 0 unreadable: see left_out.txt",
        "val: 3 of 3 clips",
    ]
    assert lines(videos / "train.csv") == [
        "train/aaaaaaaaaa0_000005_000015.mp4 2",
        "train/-aaaaaaaa_1_001002_001012.mp4 1",
        "train/aaaaaaaaaa2_000000_000010.mp4 0",
    ]
    assert lines(videos / "val.csv") == [
        "val/bbbbbbbbbb0_000005_000015.mp4 2",
        '"val/some folder/bbbbbbbbbb1_000007_000017.mkv" 1',
        "val/bbbbbbbbbb2.mp4 0",
    ]
    assert lines(videos / "classes.txt") == list(LABELS)
    assert lines(videos / "left_out.txt") == ["train: gone________000000_000010 is missing."]
    assert kinetics.check(videos, num_classes=3, full=True) == []
    reader = kinetics.Reader(videos, "val", num_classes=3, image_size=32, frames=2, stride=1)
    assert [reader[index][1] for index in range(3)] == [2, 1, 0]  # type: ignore[index]


def test_videos_elsewhere_are_listed_with_absolute_paths(videos: Path, tmp_path: Path) -> None:
    (videos / "annotations").rename(tmp_path / "csv")
    prepare(videos, tmp_path / "root", annotations=tmp_path / "csv")
    assert lines(tmp_path / "root/train.csv")[0] == f"{videos}/train/aaaaaaaaaa0_000005_000015.mp4 2"
    assert kinetics.check(tmp_path / "root", num_classes=3, full=True) == []


def test_the_lists_of_folders_of_classes(tmp_path: Path, video: bytes) -> None:
    for split in ("train", "val"):
        for name in LABELS:
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "any name.mp4").write_bytes(video)
    (tmp_path / "val" / "zumba" / ".hidden.mp4").write_bytes(video)
    assert prepare(tmp_path, tmp_path) == ["3 classes", "train: 3 of 3 clips", "val: 3 of 3 clips"]
    assert lines(tmp_path / "train.csv") == [f'"train/{name}/any name.mp4" {LABELS[name]}' for name in LABELS]
    assert len(lines(tmp_path / "val.csv")) == 3


def test_a_class_without_a_video_is_named_before_one_is_read(videos: Path, monkeypatch) -> None:
    (videos / VIDEOS[4]).unlink()
    monkeypatch.setattr("m2pt.datasets.preparation.splits.unreadable", read_nothing)
    with pytest.raises(InputError) as raised:
        prepare(videos, videos, check=True)
    assert f"{videos} has no video of val of the 1 class petting animal (not cat): get" in str(raised.value)


def test_the_command(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "prepare", "kinetics", str(videos), str(tmp_path / "root"), "--num-classes", "3"]
    assert main([*command, "--check", "--annotations", str(videos / "annotations")]) == 0
    assert "no problems found in this kinetics dataset of 3 classes" in capsys.readouterr().out
    assert main([*command[:-1], "4", "--check"]) == 2
    assert "3 classes are annotated, not num_classes = 4" in capsys.readouterr().err
    assert main([*command, "--unbalanced"]) == 2
    assert "layout kinetics has no option --unbalanced: leave it out." in capsys.readouterr().err


def test_videos_that_cannot_be_decoded_are_left_out(
    videos: Path, video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = videos / VIDEOS[0]
    broken.write_bytes(video[: len(video) // 2])
    assert "train: 2 of 4 clips; 1 missing, 1 unreadable: see left_out.txt" in prepare(
        videos, videos, check=True
    )
    _, unreadable = lines(videos / "left_out.txt")
    assert unreadable.startswith(f"train: {broken} has no video stream")
    assert len(lines(videos / "train.csv")) == 2
    record = videos / readability.RECORD
    assert len(record.read_text().split()) > 6

    read = []
    monkeypatch.setattr(
        "m2pt.datasets.preparation.kinetics.video_problem", lambda path: read.append(path) or None
    )
    record.write_text(record.read_text()[:-20])  # killed while it wrote the last line
    prepare(videos, videos, check=True)
    assert read == [videos / VIDEOS[-1]], "the others are known"
    broken.write_bytes(video)
    for name in ("train.csv", "left_out.txt"):
        (videos / name).unlink()
    assert "train: 3 of 4 clips; 1 missing, 0 unreadable: see left_out.txt" in prepare(
        videos, videos, check=True
    )
    assert read == [videos / VIDEOS[-1], broken], "it has changed"


def test_a_replacement_is_preferred(videos: Path, video: bytes) -> None:
    for folder in ("replacement/replacement_for_corrupted_k400", "replacement2"):
        (videos / folder).mkdir(parents=True)
    (videos / "replacement/replacement_for_corrupted_k400/aaaaaaaaaa0_000005_000015.mp4").write_bytes(video)
    (videos / "replacement2/aaaaaaaaaa2.mp4").write_bytes(video)
    prepare(videos, videos)
    assert lines(videos / "train.csv") == [
        "replacement/replacement_for_corrupted_k400/aaaaaaaaaa0_000005_000015.mp4 2",
        "train/-aaaaaaaa_1_001002_001012.mp4 1",
        "replacement2/aaaaaaaaaa2.mp4 0",
    ]


def test_a_video_that_is_there_twice_is_named_but_not_a_link(videos: Path, video: bytes) -> None:
    name = Path(VIDEOS[0]).name
    (videos / "z").mkdir()
    (videos / "z" / name).symlink_to(videos / VIDEOS[0])
    (videos / "loop").symlink_to(videos)
    prepare(videos, videos)
    (videos / "z" / name).unlink()
    (videos / "z" / name).write_bytes(video)
    with pytest.raises(InputError, match=f"{videos / VIDEOS[0]} and {videos}/z/{name} are the same clip"):
        prepare(videos, videos)


def test_other_lists_stay(videos: Path) -> None:
    (videos / "val.csv").write_text("mine")
    with pytest.raises(InputError, match=rf"{videos} already has val\.csv with another content"):
        prepare(videos, videos)
    assert not (videos / "train.csv").exists(), "nothing is written"
    assert (videos / "val.csv").read_text() == "mine"


def test_annotations_in_the_root_are_not_replaced(videos: Path) -> None:
    write_annotations(videos)
    with pytest.raises(InputError, match=rf"{videos} already has train\.csv with another content"):
        prepare(videos, videos)


def test_a_stopped_check_ends_with_the_same_files(videos: Path, video: bytes) -> None:
    (videos / VIDEOS[0]).write_bytes(video[:100])
    names = ("train.csv", "val.csv", "left_out.txt", readability.RECORD)

    def prepared() -> list[bytes]:
        prepare(videos, videos, check=True)
        return [(videos / name).read_bytes() for name in names]

    first = prepared()
    assert prepared() == first
    for name in names[1:3]:
        (videos / name).unlink()
    (videos / readability.RECORD).write_bytes(first[-1][:-20])
    stopped = prepared()
    assert stopped[:-1] == first[:-1], "the lists"
    assert prepared() == stopped


def test_other_lists_are_named_before_a_video_is_read(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(videos, videos, check=True)
    (videos / "val.csv").write_text((videos / "val.csv").read_text() + "mine.mp4 0\n")
    monkeypatch.setattr("m2pt.datasets.preparation.splits.unreadable", read_nothing)
    with pytest.raises(InputError, match=r"already has val\.csv with another content"):
        prepare(videos, videos, check=True)


def test_a_split_of_which_no_video_can_be_decoded_is_named(videos: Path) -> None:
    for name in VIDEOS[:3]:
        (videos / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 3 clips of train can be read\. The first: train: "):
        prepare(videos, videos, check=True)


def read_nothing(*arguments: object) -> None:
    raise AssertionError("a video is read")


def with_last_line(line: str) -> dict[str, str]:
    return {**ANNOTATIONS, "validate.csv": ANNOTATIONS["validate.csv"] + line + "\n"}


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"a.csv": ANNOTATIONS["train.csv"].replace(",5,", ",five,")}, "a.csv line 2 has a time that is not"),
        (
            {"a.csv": ANNOTATIONS["train.csv"], "b.csv": ANNOTATIONS["train.csv"].replace("zumba", "dance")},
            "b.csv gives aaaaaaaaaa0_000005_000015 the label 'dance', but an earlier line gives it 'zumba'",
        ),
        ({"a.csv": ANNOTATIONS["train.csv"]}, "has no video of val named"),
        (with_last_line("zumba,bbbbbbbbbb0,5"), "validate.csv line 5 has no time_end, split: complete it"),
        (with_last_line(",bbbbbbbbbb0,5,15,validate"), "validate.csv line 5 has no label: complete it"),
        (with_last_line("zumba,#NAME?,5,15,validate"), "line 5 has the youtube_id '#NAME?', which must have"),
        (with_last_line("zumba,bbbbbbbbbb3,5,15,valdate"), "line 5 has the split 'valdate', which must be"),
        (with_last_line("zumba,bbbbbbbbbb3,15,5,validate"), "line 5 ends at 5 s, but starts at 15 s"),
        (with_last_line("zumbas,bbbbbbbbbb3,5,15,validate"), "4 classes are annotated, not num_classes = 3"),
        (with_last_line("zumba,bbbbbbbbbb2,5,15,validate"), "bbbbbbbbbb2.mp4 is the file of two clips: val"),
        (
            with_last_line("zumba,aaaaaaaaaa0,5,15,validate"),
            "two clips: train lists aaaaaaaaaa0_000005",
        ),
        (
            {**ANNOTATIONS, "k.csv": ANNOTATIONS["train.csv"].replace("split", "subset")},
            "k.csv has no column split: annotations have label, youtube_id,",
        ),
        ({}, "has no video of train named <youtube_id>_<start>_<end>.mp4 with annotations"),
    ],
)
def test_wrong_annotations_are_named_before_a_video_is_read(
    annotations: dict[str, str], message: str, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2pt.datasets.preparation.kinetics.video_problem", read_nothing)
    write_annotations(tmp_path / "csv", annotations)
    for path in (videos / "annotations").iterdir():
        path.unlink()
    with pytest.raises(InputError) as raised:
        prepare(videos, tmp_path / "root", num_classes=3, annotations=tmp_path / "csv", check=True)
    assert message in str(raised.value)
    assert not (tmp_path / "root").exists()


def test_a_folder_without_videos_is_named(tmp_path: Path) -> None:
    write_annotations(tmp_path / "annotations")
    with pytest.raises(InputError, match=rf"{tmp_path} has no file that ends in \.mp4"):
        prepare(tmp_path, tmp_path)
    write_annotations(tmp_path / "csv")
    with pytest.raises(InputError, match="nowhere is not a folder"):
        prepare(tmp_path / "nowhere", tmp_path, annotations=tmp_path / "csv")
