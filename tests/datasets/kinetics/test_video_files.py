"""Video files of all kinds: the frames that are shown, in order and upright, or a sentence that names a file.

Each frame carries its number, which is what the test itself encoded.
"""

import io
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mp4_boxes import box, boxes, set_edits, set_matrix
from numbered_videos import LENGTH, copy_packets, decoded, numbers, picture, write_video
from PIL import Image

from m2pt.datasets import kinetics, video_files
from m2pt.datasets.augmentations import MultiView
from m2pt.datasets.video import read_frames, video_problem
from m2pt.errors import InputError

OPEN_GOP = {"x264-params": "open-gop=1:keyint=15:min-keyint=15:bframes=3:b-adapt=0:scenecut=0"}
INTRA_REFRESH = {"x264-params": "intra-refresh=1:keyint=15:bframes=0:scenecut=0"}


def shown(path: Path) -> list[int]:
    """Return the numbers of all frames; they are the same when each is read by itself."""
    seen: list[int] = []
    together = numbers(read_frames(path, lambda length: seen.append(length) or range(length)))
    assert seen == [len(together)]
    for number in range(0, len(together), 7):
        wanted = [number, number, len(together) - 1]
        assert numbers(read_frames(path, lambda length, wanted=wanted: wanted)) == [
            together[number] for number in wanted
        ]
    return together


def refused(path: Path) -> str:
    """Return the sentence of the check, which is the reader's also."""
    problem = video_problem(path)
    assert problem is not None and str(path) in problem
    with pytest.raises(InputError) as error:
        read_frames(path, range)
    assert str(error.value) == problem
    return problem


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
    assert shown(path) == list(range(LENGTH))


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
        assert shown(tmp_path / name) == list(range(20))


def test_key_frames_that_are_none_mislead_nobody(tmp_path: Path) -> None:
    """Without its table of key frames every frame of an mp4 passes for one."""
    for codec in ("mpeg4", "libx264"):
        path = tmp_path / f"{codec}.mp4"
        write_video(path, codec=codec)
        path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
        assert video_problem(path) is None
        assert shown(path) == list(range(LENGTH))


def test_frames_that_are_only_referred_to_do_not_count(tmp_path: Path) -> None:
    write_video(tmp_path / "all.webm", codec="libvpx")
    hide = lambda number, data: bytes([data[0] & ~0x10]) + data[1:] if number == 20 else data  # noqa: E731
    copy_packets(tmp_path / "all.webm", tmp_path / "hidden.webm", hide)
    assert video_problem(tmp_path / "hidden.webm") is None
    assert shown(tmp_path / "hidden.webm") == [*range(20), *range(21, LENGTH)]


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
    assert shown(path) == [
        number
        for count, first in edits
        if first is not None
        for number in range(first, min(first + (count or 0), LENGTH))
    ]


def test_a_film_without_shown_frames_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", codec="libx264")
    set_edits(tmp_path / "v.mp4", [(10, 200)])
    assert "has no frames" in refused(tmp_path / "v.mp4")


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


def write_jpegs(path: Path, pictures: list[bytes]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuvj420p"
        container.start_encoding()
        for number, content in enumerate(pictures):
            packet = av.Packet(content)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux(packet)


def jpeg(pixels: np.ndarray, orientation: int | None = None) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    if orientation:
        exif[0x112] = orientation
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


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
            given = av.open(str(video))
            stream = container.add_stream_from_template(given.streams.video[0])
            packets = [packet for packet in given.demux(video=0) if packet.size]
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
    assert shown(tmp_path / "v.mp4") == list(range(LENGTH))
    write_with_cover(tmp_path / "song.mp4", None)
    assert "only a cover picture" in refused(tmp_path / "song.mp4")


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
        assert shown(path) == list(range(LENGTH)), "only Matroska's table of key frames is lost"


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
    assert shown(tmp_path / "v.mkv") == list(range(20))


@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_films_are_read(tmp_path: Path, length: int) -> None:
    for name in ("v.mp4", "v.mkv", "v.avi"):
        write_video(tmp_path / name, range(length))
        assert video_problem(tmp_path / name) is None
        assert shown(tmp_path / name) == list(range(length))


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
    assert shown(Path(name)) == list(range(5))


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
