"""Frames of videos: those shown at each time, in folders that appear whole."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m2pt.commands import main
from m2pt.datasets.frames import extract, extract_all, frames_at
from m2pt.datasets.miniature.kinetics import RATE, encode
from m2pt.errors import InputError


def film(path: Path, frames: int) -> Path:
    """Write a video at 12 frames per second whose frame k has the brightness 5 k."""
    path.parent.mkdir(exist_ok=True)
    encode(path, [np.full((32, 48, 3), 5 * number, np.uint8) for number in range(frames)])
    return path


def numbers(pixels: list[np.ndarray]) -> list[int]:
    return [round(picture.mean() / 5) for picture in pixels]


@pytest.mark.parametrize(
    ("frames", "fps", "expected"),
    [
        (30, 1, [0, 12, 24]),
        (36, 1, [0, 12, 24]),
        (37, 1, [0, 12, 24, 36]),
        (5, 1, [0]),
        (12, 6, [0, 2, 4, 6, 8, 10]),
        (12, 5, [0, 2, 4, 7, 9]),  # at 0, 0.2, 0.4, 0.6, 0.8 s: the last frame that begins by then
        (3, 24, [0, 0, 1, 1, 2]),
    ],
)
def test_the_frames_shown_at_each_time(frames: int, fps: float, expected: list[int], tmp_path: Path) -> None:
    assert RATE == 12
    assert numbers(list(frames_at(film(tmp_path / "a.mp4", frames), fps))) == expected


def test_a_folder_of_jpegs_for_each_video(tmp_path: Path) -> None:
    videos, frames = tmp_path / "videos", tmp_path / "deep" / "frames"
    film(videos / "one.mp4", 30)
    film(videos / "two.MP4", 13)
    (videos / "notes.txt").touch()
    assert extract_all(videos, frames) == 2
    assert sorted(path.name for path in frames.iterdir()) == ["one", "two"]
    files = sorted((frames / "one").iterdir())
    assert [path.name for path in files] == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert numbers([np.asarray(Image.open(path)) for path in files]) == [0, 12, 24]
    assert len(list((frames / "two").iterdir())) == 2


def test_an_extraction_goes_on_where_it_stopped(tmp_path: Path) -> None:
    videos, frames = tmp_path / "videos", tmp_path / "frames"
    film(videos / "a.mp4", 13)
    broken = film(videos / "b.mp4", 30)
    sound = broken.read_bytes()
    broken.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(InputError, match=r"b\.mp4"):
        extract_all(videos, frames)
    assert [path.name for path in frames.iterdir()] == ["a"], "nothing half done"
    (frames / "a" / "00000.jpg").write_bytes(b"kept")
    broken.write_bytes(sound)
    assert extract_all(videos, frames) == 1
    assert (frames / "a" / "00000.jpg").read_bytes() == b"kept"
    assert extract_all(videos, frames) == 0


def test_what_cannot_be_extracted_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=f"{folder} is missing or has no video"):
            extract_all(folder, tmp_path / "frames")
    film(tmp_path / "a.mp4", 3)
    (tmp_path / "a.mkv").touch()
    with pytest.raises(InputError, match=r"a\.mp4 has the name of a\.mkv"):
        extract_all(tmp_path, tmp_path / "frames")
    with pytest.raises(InputError, match=r"none\.mp4"):
        extract(tmp_path / "none.mp4", tmp_path / "frames")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film(tmp_path / "videos" / "a.mp4", 13)
    arguments = ["data", "frames", str(tmp_path / "videos"), str(tmp_path / "frames"), "--fps", "12"]
    assert main(arguments) == 0
    assert len(list((tmp_path / "frames" / "a").iterdir())) == 13
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {tmp_path / 'frames'}: 1 video"
    for fps in ("0", "nan", "-1", "1e9"):
        assert main([*arguments[:-1], fps]) == 2
        assert "must be a number from 0.001 to 1000" in capsys.readouterr().err
