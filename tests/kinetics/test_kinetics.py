"""The Kinetics reader: frames found by number in real files, clips of them, and every fault."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numbered_videos import numbers, pixels, write_video

from m2pt.datasets import kinetics
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


def test_only_the_frames_in_between_are_decoded(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    original = av.container.InputContainer.decode

    class Container:
        def __init__(self, container: av.container.InputContainer) -> None:
            self.container = container

        def __getattr__(self, name: str):
            return getattr(self.container, name)

        def decode(self, *streams):
            for frame in original(self.container, *streams):
                decoded.append(frame.pts)
                yield frame

        def __enter__(self):
            return self

        def __exit__(self, *details) -> None:
            self.container.close()

    opened = av.open
    monkeypatch.setattr(av, "open", lambda path: Container(opened(path)))
    assert numbers(read_frames(video, lambda length: [33, 35])) == [33, 35]
    assert len(decoded) <= 6, "from the key frame 30, or a later one, to frame 35"


def test_a_variable_frame_rate_is_followed_in_time(tmp_path: Path) -> None:
    """Twenty frames in forty ticks, half of them after a pause: number w is the first at 2 w ticks, about."""
    times = [*range(10), *range(30, 40)]
    write_video(tmp_path / "pause.mp4", times)
    frames = read_frames(tmp_path / "pause.mp4", range)
    expected = [next(i for i, time in enumerate(times) if time >= 2 * wanted - 1) for wanted in range(20)]
    assert numbers(frames) == expected


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
        root, "train", num_classes=2, image_size=48, frames=2, stride=28, augmentation={}
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


def test_a_sound_dataset_has_no_faults_and_is_described(root: Path) -> None:
    assert kinetics.check(root, num_classes=2, full=True) == []
    assert kinetics.classes(root) == ["0", "1"]
    assert kinetics.counts(root) == {"train": 2, "val": 2}
    assert sorted(kinetics.files(root)) == sorted(path for path in root.rglob("*") if path.is_file())
    (root / "test.csv").unlink()
    assert kinetics.check(root, num_classes=2, full=False) == []


def truncate(path: Path, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


@pytest.mark.parametrize(
    ("damage", "full", "message"),
    [
        (lambda r: (r / "val.csv").unlink(), False, "val.csv cannot be read"),
        (lambda r: (r / "train.csv").write_text(""), False, "train.csv is empty"),
        (lambda r: (r / "train.csv").write_text("a.mp4\n"), False, "train.csv line 1 is 'a.mp4'"),
        (lambda r: (r / "train.csv").write_text("a.mp4 -1\n"), False, "train.csv line 1 is 'a.mp4 -1'"),
        (lambda r: (r / "test.csv").write_text("a.mp4,1\n"), False, "test.csv line 1 is 'a.mp4,1'"),
        (lambda r: (r / "train.csv").write_text("a.mp4 2\n"), False, "has label 2, not one of 0 to 1"),
        (lambda r: (r / "val.csv").write_text("some videos/val0.mp4 0\n"), False, "class 1 (1) is empty"),
        (lambda r: (r / "some videos/val1.mp4").unlink(), False, "val1.mp4 is missing although"),
        (lambda r: truncate(r / "some videos/val1.mp4", 0.5), True, "val1.mp4 cannot be decoded"),
        (lambda r: truncate(r / "some videos/val1.mp4", 0), True, "val1.mp4 cannot be decoded"),
        (lambda r: (r / "some videos/val1.mp4").write_text("no video"), True, "val1.mp4 cannot be decoded"),
    ],
)
def test_every_fault_is_named(root: Path, damage, full: bool, message: str) -> None:
    damage(root)
    faults = kinetics.check(root, num_classes=2, full=full)
    assert any(message in fault for fault in faults), faults
    assert not full or kinetics.check(root, num_classes=2, full=False) == []


def write_fast_start(path: Path) -> None:
    """Move the index to the front, as web videos have it, so that a truncated file can still be opened."""
    with (
        av.open(str(path)) as source,
        av.open(str(path) + ".mp4", "w", options={"movflags": "faststart"}) as copy,
    ):
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    Path(str(path) + ".mp4").rename(path)


def test_a_video_that_ends_early_is_named(root: Path) -> None:
    path = root / "some videos/val1.mp4"
    write_fast_start(path)
    assert kinetics.check(root, num_classes=2, full=True) == []
    truncate(path, 0.8)
    (fault,) = kinetics.check(root, num_classes=2, full=True)
    assert "val1.mp4" in fault and ("is truncated" in fault or "cannot be decoded" in fault)


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    with pytest.raises(InputError, match="has label 1, not one of 0 to 0"):
        kinetics.Reader(root, "train", num_classes=1, image_size=16)
    with pytest.raises(InputError, match="unknown augmentation key 'flip'"):
        kinetics.Reader(root, "train", num_classes=2, image_size=16, augmentation={"flip": 1})
    with pytest.raises(InputError, match="unknown augmentation key 'mixup'"):
        kinetics.Reader(
            root, "train", num_classes=2, image_size=16, augmentation={"scale": [1, 1], "mixup": 1}
        )
    with pytest.raises(InputError, match="give either augmentation"):
        views = {"clips": 1, "crops": 1}
        kinetics.Reader(root, "train", num_classes=2, image_size=16, augmentation={}, views=views)
    (root / "some videos/train0.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"train0.mp4 cannot be decoded"):
        kinetics.Reader(root, "train", num_classes=2, image_size=16)[0]
    (root / "some videos/train1.mp4").unlink()
    with pytest.raises(InputError, match=r"train1.mp4 cannot be decoded"):
        kinetics.Reader(root, "train", num_classes=2, image_size=16)[1]
