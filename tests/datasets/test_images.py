"""Which files count as images, and what is made of their pixels, against NumPy."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from m2pt.datasets.checks import error_of, quick_sample
from m2pt.datasets.images import (
    folder_names,
    image_names,
    image_size,
    open_image,
    unread_files,
)
from m2pt.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY = np.arange(256, dtype=np.uint8).reshape(8, 32)
COLORS = np.random.default_rng(0).integers(0, 256, (8, 32, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(extra: bytes, image: Image.Image | None = None) -> bytes:
    content = encoded(image or Image.fromarray(COLORS), "PNG")
    return content[:33] + extra + content[33:]


def png_of(width: int, height: int) -> bytes:
    return encoded(Image.new("1", (width, height)), "PNG")


def png_of_parts(width: int, *parts: bytes) -> bytes:
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, 8, 8, 2, 0, 0, 0)) + b"".join(parts)


def tiff_16(order: str) -> bytes:
    """A gray TIFF of 16 bits, written by hand in the given byte order."""
    height, width = GRAY.shape
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 2 * GRAY.size}
    pixels = (GRAY.astype(np.uint16) * 257).astype(f"{order}u2").tobytes()
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, 4, 1) + struct.pack(f"{order}I", value) for tag, value in tags.items()
    )
    mark = b"II" if order == "<" else b"MM"
    header = mark + struct.pack(f"{order}HI", 42, 8 + len(pixels))
    return header + pixels + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(encoded(Image.fromarray(GRAY.astype(np.uint16) * 257), "PNG"), id="PNG"),
        pytest.param(encoded(Image.fromarray(GRAY.astype(np.uint16) * 257), "TIFF"), id="TIFF"),
        pytest.param(tiff_16("<"), id="TIFF, little-endian"),
        pytest.param(tiff_16(">"), id="TIFF, big-endian"),
        pytest.param(b"P5 32 8 65535\n" + (GRAY.astype(">u2") * 257).tobytes(), id="PGM"),
        pytest.param(b"P5 32 8 255\n" + GRAY.tobytes(), id="PGM of 8 bits"),
    ],
)
def test_gray_keeps_its_values(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    pixels = np.asarray(open_image(tmp_path / "a.png"))
    assert (pixels == GRAY[..., None]).all()


def test_colors_of_16_bits_keep_their_values(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in COLORS)
    header = struct.pack(">IIBBBBB", 32, 8, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(SIGNATURE + b"".join(parts))
    assert (np.asarray(open_image(tmp_path / "a.png")) == COLORS).all()


def test_other_pixels_are_those_of_a_conversion_to_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    colors = Image.fromarray(COLORS)
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        path.write_bytes(encoded(colors, kind))
        assert (np.asarray(open_image(path)) == COLORS).all()
    path.write_bytes(encoded(colors, "WEBP", lossless=True))
    assert (np.asarray(open_image(path)) == COLORS).all()
    for mode in ("1", "L", "P", "LA", "RGBA"):
        path.write_bytes(encoded(colors.convert(mode), "PNG"))
        assert open_image(path).tobytes() == colors.convert(mode).convert("RGB").tobytes()
    path.write_bytes(encoded(Image.new("CMYK", (9, 5), (255, 0, 0, 0)), "JPEG"))
    assert np.abs(np.asarray(open_image(path), int) - [0, 255, 255]).max() < 4


def test_the_first_frame_counts_and_exif_turns_nothing(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 4), "red"), Image.new("RGB", (8, 4), "blue")
    for kind, name in (("WEBP", "a.webp"), ("TIFF", "a.tiff")):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(first, kind, save_all=True, append_images=[second], **options)
        (tmp_path / name).write_bytes(content)
        assert (np.asarray(open_image(tmp_path / name)) == [255, 0, 0]).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    first.save(tmp_path / "turned.jpg", exif=exif)
    assert (
        open_image(tmp_path / "turned.jpg").size
        == image_size(tmp_path / "turned.jpg", decode=False)
        == (8, 4)
    )


def test_a_large_photograph_is_read_without_a_word(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_of(12_000, 9_000))
    assert image_size(path, decode=False) == (12_000, 9_000)
    assert error_of(open_image, path) is None
    assert len(recwarn) == 0


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "text": b"not an image",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "200 million pixels": png_of(20_000, 10_000),
    "400 million pixels": png_of(20_000, 20_000),
    "a line": png_of(60_000, 1),
    "a wall": png_of(1, 60_000),
    "text of 2 MB": png_with(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000)))),
    "international text of 2 MB": png_with(chunk(b"iTXt", b"C\0\1\0\0\0" + zlib.compress(bytes(2_000_000)))),
    "a chunk without its end": png_with(chunk(b"zTXt", b"Comment")[:-2]),
    "a chunk with another checksum": png_with(chunk(b"gAMA", b"\0\0\0\1")[:-1] + b"\0"),
    "a short pHYs": png_with(chunk(b"pHYs", b"\0")),
    "a chunk longer than the file": png_with(struct.pack(">I", 2**31 - 1) + b"tEXt"),
    "no pixels": png_of_parts(8, chunk(b"IEND", b"")),
    "too few pixels": png_of_parts(8, chunk(b"IDAT", zlib.compress(b"\0abc")), chunk(b"IEND", b"")),
    "no width": png_of_parts(0),
    "a short header": SIGNATURE + chunk(b"IHDR", b"\0\0"),
    "half a JPEG": encoded(Image.fromarray(COLORS), "JPEG")[:400],
    "half a BMP": encoded(Image.fromarray(COLORS), "BMP")[:400],
    "half a TIFF": encoded(Image.fromarray(COLORS), "TIFF")[:300],
    "half a WebP": encoded(Image.fromarray(COLORS), "WEBP", lossless=True)[:300],
    "half a PPM": encoded(Image.fromarray(COLORS), "PPM")[:300],
    "32-bit integers": encoded(Image.fromarray(np.full((8, 8), 70_000, np.int32)), "TIFF"),
    "32-bit floats": encoded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(BROKEN[name])
    with pytest.raises(InputError, match=r"broken\.png"):
        open_image(path)
    assert str(path) in str(error_of(open_image, path))


SOUND = {
    kind: encoded(Image.fromarray(COLORS), kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
}


@given(
    kind=st.sampled_from(sorted(SOUND)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_damage_is_refused_or_read(
    kind: str, flips: list[tuple[float, int]], kept: float, tmp_path: Path
) -> None:
    content = bytearray(SOUND[kind])
    for place, value in flips:
        content[int(place * len(content))] = value
    path = tmp_path / "damaged.png"
    path.write_bytes(content[: max(1, int(kept * len(content)))] if kept < 0.5 else content)
    try:
        image = open_image(path)
    except InputError as error:
        assert str(path) in str(error)
        assert error_of(open_image, path) == str(error)
    else:
        assert image.mode == "RGB"
        assert error_of(open_image, path) is None


def test_what_is_no_file_is_neither_listed_nor_waited_for(tmp_path: Path) -> None:
    Image.fromarray(COLORS).save(tmp_path / "a.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "._a.jpg").write_bytes(b"\0\5\26\7")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    (tmp_path / "README").write_text("about")
    (tmp_path / "notes.txt").write_text("about")
    assert image_names(tmp_path) == ["a.jpg", "link.jpg"]
    assert list(unread_files(tmp_path)) == []
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    assert image_names(tmp_path) == ["a.jpg", "link.jpg"]
    problems = "\n".join(unread_files(tmp_path))
    assert all(f"{name}.jpg is a" in problems for name in ("broken", "circle", "folder", "pipe"))
    for name in ("pipe.jpg", "folder.jpg", "broken.jpg", "circle.jpg", "absent.jpg"):
        with pytest.raises(InputError, match=name):
            open_image(tmp_path / name)


def test_images_of_every_usual_kind_are_listed(tmp_path: Path) -> None:
    endings = "jpg jpeg JPEG png PNG ppm bmp pgm tif TIFF webp"
    names = sorted(f"a.{ending}" for ending in endings.split())
    for name in names:
        (tmp_path / name).touch()
    assert image_names(tmp_path) == names
    assert list(unread_files(tmp_path)) == []


@pytest.mark.parametrize(
    "name",
    [
        "a.gif",
        "a.HEIC",
        "a.jfif",
        "a.avif",
        "a.jp2",
        "a.svg",
        "a.CR2",
        "a.jpg.part",
        "a.jpg~",
        "img_1",
        "a.jpg ",
    ],
)
def test_what_looks_like_an_image_and_is_not_read_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    (tmp_path / f"z{name}").touch()
    assert image_names(tmp_path) == []
    (problem,) = unread_files(tmp_path)
    assert f"{tmp_path} has 2 files that are not images, such as {name}: images end in .jpg" in problem


def test_names_that_are_not_utf_8_are_refused_in_print(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).touch()
    (tmp_path / "café.jpg").touch()
    (problem,) = unread_files(tmp_path)
    assert problem == f"{tmp_path}/caf\\xe9.jpg has a name that is not UTF-8; rename it."


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    for name in ("b", "a", ".ipynb_checkpoints", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "c").symlink_to(tmp_path / "a")
    assert folder_names(tmp_path) == ["a", "b", "c"]
    assert list(unread_files(tmp_path, of_classes=True)) == []
    assert folder_names(tmp_path / "nowhere") == image_names(tmp_path / "nowhere") == []


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (3, 3), (500, 500), (501, 251), (50_000, 500)])
def test_the_quick_check_decodes_an_even_sample(count: int, expected: int) -> None:
    assert len(quick_sample(range(count), full=False)) == expected
    assert len(quick_sample(range(count), full=True)) == count


def test_the_check_reads_what_the_reader_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoding_fails(*arguments: object) -> None:
        raise MemoryError

    (tmp_path / "a.png").write_bytes(SOUND["PNG"])
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding_fails)
    assert (
        error_of(open_image, tmp_path / "a.png")
        == f"{tmp_path}/a.png cannot be read as an image: MemoryError."
    )
