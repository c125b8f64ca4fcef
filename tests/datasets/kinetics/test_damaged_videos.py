"""Video files that are damaged or no videos: each is refused with a sentence that names the file."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mp4_boxes import set_edits
from numbered_videos import LENGTH, frame_numbers, jpeg, refused, write_jpegs, write_video
from PIL import Image

from m2pt.datasets.video import read_frames, video_problem


def test_a_film_without_shown_frames_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", codec="libx264")
    set_edits(tmp_path / "v.mp4", [(10, 200)])
    assert "has no frames" in refused(tmp_path / "v.mp4")


def test_a_sound_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        sound.sample_rate, sound.pts = 8000, 0
        container.mux([*stream.encode(sound), *stream.encode()])
    assert "no video stream" in refused(tmp_path / "v.mp4")


def keep(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.webm"])
def test_a_file_that_ends_early_is_named(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    codec = "libvpx-vp9" if name == "v.webm" else "libx264"
    write_video(path, codec=codec, movflags="faststart" if name == "v.mp4" else "")
    assert video_problem(path) is None
    keep(path, share)
    if name == "v.mp4" or share < 0.9:
        refused(path)
    else:
        assert frame_numbers(path) == list(range(LENGTH)), "only Matroska's table of key frames is lost"


def test_a_lost_index_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    keep(tmp_path / "v.mp4", 0.9)
    refused(tmp_path / "v.mp4")
    write_video(tmp_path / "v.avi")
    with (tmp_path / "v.avi").open("r+b") as file:  # 60 frames are announced
        file.truncate((tmp_path / "v.avi").read_bytes().index(b"00dc", 6000))
    assert "truncated" in refused(tmp_path / "v.avi")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_damaged_midway_are_named(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, codec=codec)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][30]
    content[packet.pos + 5 : packet.pos + packet.size] = b"\xff" * (packet.size - 5)
    path.write_bytes(content)
    refused(path)


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.webm"
    write_video(path, codec="libvpx-vp9")
    with av.open(str(path)) as container:
        stored = [bytes(packet) for packet in container.demux(video=0)][30]
    hidden = bytes([stored[0] & ~0b10]) + stored[1:]  # the bit show_frame of VP9
    path.write_bytes(path.read_bytes().replace(stored, hidden))
    assert "59 of 60 frames can be decoded" in refused(path)


def test_frames_of_several_sizes_are_refused(tmp_path: Path) -> None:
    pixels = [np.zeros((48, 48, 3), np.uint8)] * 5 + [np.zeros((48, 64, 3), np.uint8)] * 5
    write_jpegs(tmp_path / "v.mov", [jpeg(frame) for frame in pixels])
    assert "has frames of different sizes" in refused(tmp_path / "v.mov")


@pytest.mark.parametrize(
    ("size", "message"), [((8, 8), "8 x 8"), ((1600, 32), "1600 x 32"), ((4100, 4100), "4096 x 4096")]
)
def test_frames_that_no_view_can_take_are_refused(
    tmp_path: Path, size: tuple[int, int], message: str
) -> None:
    Image.new("P", size).save(tmp_path / "v.gif", save_all=True, append_images=[Image.new("P", size, 1)])
    assert message in refused(tmp_path / "v.gif")


@pytest.mark.parametrize(
    "name",
    [
        "pipe:0",
        "http:clip.mp4",
        "concat:a|b",
        "-i.mp4",
        "v%02d.mp4",
        "new\nline.mp4",
        "caf\udce9.mp4",
        "v.png",
        "no end",
    ],
)
def test_a_name_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_video(tmp_path / "v.mp4", range(5))
    (tmp_path / "v.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert video_problem(Path(name)) is None
    assert frame_numbers(Path(name)) == list(range(5))


def test_only_the_named_file_is_opened(tmp_path: Path) -> None:
    write_video(tmp_path / "v.ts", codec="libx264")
    playlists = {
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nv.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile v.ts\n",
        "text.mp4": "no video",
        "empty.mp4": "",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        assert "cannot be read as a video" in refused(tmp_path / name)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to("nowhere.mp4")
    for name in ("folder.mp4", "pipe.mp4"):
        assert "is a folder, pipe or device" in refused(tmp_path / name)
    for name in ("link.mp4", "missing.mp4"):
        assert "No such file" in refused(tmp_path / name)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder, result = tmp_path_factory.mktemp("samples"), {}
    for name, codec in {
        "v.mp4": "libx264",
        "v.mkv": "libx264",
        "v.avi": "mpeg4",
        "v.ts": "mpeg2video",
    }.items():
        write_video(folder / name, range(20), codec=codec, b_frames=2)
        result[name] = (folder / name).read_bytes()
    return result


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_the_check_accepts_of_damaged_files_is_read(
    tmp_path: Path, samples: dict[str, bytes], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(samples)))
    content = bytearray(samples[name])
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    (tmp_path / name).write_bytes(content[: data.draw(st.integers(len(content) // 2, 2 * len(content)))])
    if video_problem(tmp_path / name) is None:
        length = len(read_frames(tmp_path / name, range))
        for number in range(0, length, 5):
            assert len(read_frames(tmp_path / name, lambda found, number=number: [number, found - 1])) == 2
