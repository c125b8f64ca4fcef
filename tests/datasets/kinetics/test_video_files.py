"""Video files of all kinds: the frames that a player displays, in order and upright.

Each frame carries its number, which is what the test itself encoded.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from mp4_boxes import box, boxes, set_edits, set_matrix
from numbered_videos import (
    LENGTH,
    copy_packets,
    decoded,
    frame_numbers,
    jpeg,
    numbers,
    picture,
    refused,
    write_jpegs,
    write_video,
)

from m2pt.datasets import kinetics, video_files
from m2pt.datasets.augmentations import MultiView
from m2pt.datasets.video import read_frames, video_problem

OPEN_GOP = {"x264-params": "open-gop=1:keyint=15:min-keyint=15:bframes=3:b-adapt=0:scenecut=0"}
INTRA_REFRESH = {"x264-params": "intra-refresh=1:keyint=15:bframes=0:scenecut=0"}


@pytest.mark.parametrize(
    ("name", "codec", "b_frames", "options"),
    [
        ("v.mp4", "mpeg4", 0, {}),
        ("v.mp4", "mpeg4", 2, {}),
        ("v.mp4", "libx264", 0, {}),
        ("v.mp4", "libx264", 2, {}),
        ("v.mp4", "libx264", 3, OPEN_GOP),
        ("v.mp4", "libx264", 0, INTRA_REFRESH),
        ("v.mov", "mpeg4", 2, {}),
        ("v.mkv", "libx264", 2, {}),
        ("v.mkv", "libx264", 3, OPEN_GOP),
        ("v.mkv", "mpeg2video", 2, {}),
        ("v.webm", "libvpx-vp9", 0, {}),
        ("v.webm", "libvpx", 0, {}),
        ("v.avi", "mpeg4", 2, {}),
        ("v.avi", "libx264", 2, {}),
        ("v.ts", "libx264", 2, {}),
        ("v.ts", "mpeg2video", 2, {}),
        ("v.mpg", "mpeg2video", 2, {}),
        ("v.mpg", "mpeg1video", 2, {}),
        ("v.flv", "libx264", 2, {}),
        ("v.flv", "flv", 0, {}),
        ("v.wmv", "wmv2", 0, {}),
        ("v.h264", "libx264", 2, {}),
        ("v.ogv", "libvpx", 0, {}),
        ("v.nut", "mpeg4", 2, {}),
    ],
)
def test_every_frame_of_every_container_is_found(
    tmp_path: Path, name: str, codec: str, b_frames: int, options: dict[str, str]
) -> None:
    path = tmp_path / name
    write_video(path, codec=codec, b_frames=b_frames, options=options)
    assert video_problem(path) is None
    assert frame_numbers(path) == list(range(LENGTH))


@pytest.mark.parametrize(
    ("name", "codec", "b_frames", "options"),
    [
        ("v.mp4", "mpeg4", 0, {}),
        ("v.mp4", "libx264", 3, OPEN_GOP),
        ("v.mkv", "libx264", 2, {}),
        ("v.webm", "libvpx-vp9", 0, {}),
    ],
)
def test_only_the_frames_in_between_are_decoded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    codec: str,
    b_frames: int,
    options: dict[str, str],
) -> None:
    path = tmp_path / name
    write_video(path, codec=codec, b_frames=b_frames, options=options)
    decoded_frames, upright = [], video_files._upright
    monkeypatch.setattr(video_files, "_upright", lambda frame: decoded_frames.append(frame) or upright(frame))
    assert numbers(read_frames(path, lambda length: [33, 35])) == [33, 35]
    assert len(decoded_frames) <= 10, "from the key frame 30, or a later one, to frame 35"


def test_frames_count_alike_however_long_they_are_shown(tmp_path: Path) -> None:
    times = [*range(10), *range(30, 40)]
    for name in ("pause.mp4", "pause.mkv"):
        write_video(tmp_path / name, times)
        assert video_problem(tmp_path / name) is None
        assert frame_numbers(tmp_path / name) == list(range(20))


def test_key_frames_that_are_none_mislead_nobody(tmp_path: Path) -> None:
    """Without its table of key frames every frame of an mp4 passes for one."""
    for codec in ("mpeg4", "libx264"):
        path = tmp_path / f"{codec}.mp4"
        write_video(path, codec=codec)
        path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
        assert video_problem(path) is None
        assert frame_numbers(path) == list(range(LENGTH))


def test_frames_that_are_only_referred_to_do_not_count(tmp_path: Path) -> None:
    write_video(tmp_path / "all.webm", codec="libvpx")
    hide = lambda number, data: bytes([data[0] & ~0x10]) + data[1:] if number == 20 else data  # noqa: E731
    copy_packets(tmp_path / "all.webm", tmp_path / "hidden.webm", hide)
    assert video_problem(tmp_path / "hidden.webm") is None
    assert frame_numbers(tmp_path / "hidden.webm") == [*range(20), *range(21, LENGTH)]


@pytest.mark.parametrize(
    "edits",
    [
        [(40, 20)],  # the start cut off, within a group of frames
        [(30, 30)],  # and at a key frame
        [(25, 0)],  # the end cut off
        [(20, 17)],  # both
        [(None, None), (LENGTH, 0)],  # a pause first
        [(10, 5), (10, 40)],  # the middle cut out
        [(10, 40), (10, 5)],  # another order
        [(10, 5), (10, 5)],  # a repetition
        [(1, 33)],
        [(100, 0)],  # beyond the end
    ],
)
@pytest.mark.parametrize(("codec", "b_frames"), [("libx264", 0), ("libx264", 2), ("mpeg4", 2)])
def test_edit_lists_say_what_is_shown(
    tmp_path: Path, codec: str, b_frames: int, edits: list[tuple[int | None, int | None]]
) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, codec=codec, b_frames=b_frames)
    set_edits(path, [(count or 12, first) for count, first in edits])
    assert video_problem(path) is None
    assert frame_numbers(path) == [
        number
        for count, first in edits
        if first is not None
        for number in range(first, min(first + (count or 0), LENGTH))
    ]


def moved(frame: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Move each pixel of a frame to where a display matrix puts it."""
    rows, columns = np.indices(frame.shape[:2])
    right, down = a * columns + c * rows, b * columns + d * rows
    right, down = right - right.min(), down - down.min()
    result = np.empty((down.max() + 1, right.max() + 1, 3), np.uint8)
    result[down, right] = frame
    return result


def write_lying(path: Path, codec: str = "libx264") -> None:
    """Write a video 64 x 48 that no symmetry leaves as it is."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            pixels = np.zeros((48, 64, 3), np.uint8)
            pixels[:24, :16, 0], pixels[30:, 40:, 1], pixels[:8, 8:, 2] = 250, 200, 12 * number
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1),
        (0, 1, -1, 0),
        (-1, 0, 0, -1),
        (0, -1, 1, 0),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, -1, 0),
        (0, 2, -2, 0),
        (0, 0, 0, 0),
    ],
)
def test_frames_are_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = tmp_path / "v.mp4"
    write_lying(path)
    stored = decoded(path)
    if matrix != (1, 0, 0, 1):
        set_matrix(path, *matrix)
    assert video_problem(path) is None
    seen = read_frames(path, range)
    signs = (
        np.sign(matrix) if any(matrix) else (1, 0, 0, 1)
    )  # lengths do not count, and nothing means nothing
    np.testing.assert_array_equal(seen, [moved(frame, *signs) for frame in stored])
    np.testing.assert_array_equal(read_frames(path, lambda length: [13]), seen[13:14])
    if matrix == (0, 1, -1, 0):
        np.testing.assert_array_equal(
            seen, np.rot90(stored, -1, axes=(1, 2)), "clockwise, as phones store it"
        )


def test_a_slanted_film_is_refused(tmp_path: Path) -> None:
    write_lying(tmp_path / "v.mp4")
    set_matrix(tmp_path / "v.mp4", 1, 1, -1, 1)
    assert "not a multiple of 90 degrees" in refused(tmp_path / "v.mp4")


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, -1), (3, 2), (8, 1)])
def test_the_orientation_of_jpegs_counts(tmp_path: Path, orientation: int, turns: int) -> None:
    write_jpegs(tmp_path / "lying.mov", [jpeg(picture(number)) for number in range(5)])
    write_jpegs(tmp_path / "upright.mov", [jpeg(picture(number), orientation) for number in range(5)])
    assert video_problem(tmp_path / "upright.mov") is None
    lying = read_frames(tmp_path / "lying.mov", range)
    np.testing.assert_array_equal(
        read_frames(tmp_path / "upright.mov", range), np.rot90(lying, turns, axes=(1, 2))
    )


def write_with_cover(path: Path, video: Path | None) -> None:
    """Write an mp4 with a cover picture that comes first, and a video or only a sound."""
    with av.open(str(path), "w") as container:
        if video is not None:
            source = av.open(str(video))
            stream = container.add_stream_from_template(source.streams.video[0])
            packets = [packet for packet in source.demux(video=0) if packet.size]
        else:
            stream = container.add_stream("aac", rate=8000, layout="mono")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
            sound.sample_rate, sound.pts = 8000, 0
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 48, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.start_encoding()
        packet = av.Packet(jpeg(np.full((48, 48, 3), 255, np.uint8)))
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1)
        container.mux(packet)
        if video is None:
            packets = [*stream.encode(sound), *stream.encode()]
        for packet in packets:
            packet.stream = stream
            container.mux(packet)

    def tags_first(content: bytes) -> bytes:
        return b"".join(box(*item) for item in sorted(boxes(content), key=lambda item: item[0] != b"udta"))

    (movie,) = (content for kind, content in boxes(path.read_bytes()) if kind == b"moov")
    path.write_bytes(path.read_bytes().replace(box(b"moov", movie), box(b"moov", tags_first(movie))))


def test_a_cover_picture_is_not_the_film(tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", codec="libx264", b_frames=2)
    write_with_cover(tmp_path / "v.mp4", tmp_path / "video.mp4")
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].disposition & Disposition.attached_pic
    assert video_problem(tmp_path / "v.mp4") is None
    assert frame_numbers(tmp_path / "v.mp4") == list(range(LENGTH))
    write_with_cover(tmp_path / "song.mp4", None)
    assert "only a cover picture" in refused(tmp_path / "song.mp4")


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [
        ("libx264", "yuv420p10le"),
        ("libx264", "yuv444p"),
        ("ffv1", "gray"),
        ("ffv1", "gray16le"),
        ("libvpx-vp9", "yuva420p"),
        ("mpeg2video", "yuv422p"),
    ],
)
def test_pixels_of_all_formats_are_read(tmp_path: Path, codec: str, pixels: str) -> None:
    write_video(tmp_path / "v.mkv", range(20), codec=codec, pixels=pixels)
    assert video_problem(tmp_path / "v.mkv") is None
    assert frame_numbers(tmp_path / "v.mkv") == list(range(20))


@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_films_are_read(tmp_path: Path, length: int) -> None:
    for name in ("v.mp4", "v.mkv", "v.avi"):
        write_video(tmp_path / name, range(length))
        assert video_problem(tmp_path / name) is None
        assert frame_numbers(tmp_path / name) == list(range(length))


def test_readers_see_the_shown_frames_upright(root: Path) -> None:
    """A phone's clip, trimmed without encoding it again, in all views."""
    path = root / "some videos/val1.mp4"
    write_video(path, codec="libx264", b_frames=2)
    set_edits(path, [(40, 20)])
    set_matrix(path, -1, 0, 0, -1)
    assert kinetics.check(root, num_classes=2, full=True) == []
    settings = {"num_classes": 2, "image_size": 48, "frames": 4, "stride": 4}
    clip = kinetics.Reader(root, "val", **settings)[1][0]
    views = kinetics.Reader(root, "val", **settings, views=MultiView(clips=2, crops=1))[1][0]
    for seen, first in ((clip, 32), (views[0], 20), (views[1], 44)):
        turned = np.rot90(np.float32(seen.permute(1, 2, 3, 0)), 2, axes=(1, 2)) > 0
        assert numbers(255 * turned) == [first + 4 * step for step in range(4)]
