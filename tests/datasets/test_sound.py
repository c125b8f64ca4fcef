"""Sound files: every sample that was written is read, whatever the header says, or the file is refused."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from m2pt.datasets.sound import LONGEST, read_sound
from m2pt.errors import InputError

RATE = 16000
UNKNOWN = {
    "FFmpeg": (0xFFFFFFFF, 0xFFFFFFFF),
    "sox": (0x7FFFF024, 0x7FFFF000),
    "arecord": (0x80000024, 0x80000000),
    "half of all": (0x7FFFFFFF, 0x7FFFFFFF - 36),
    "zeros": (0, 0),
    "zero sound": (None, 0),
    "zero file": (0, None),
    "a file of any size": (0xFFFFFFFF, None),
}


def tone(samples: int = 4001) -> np.ndarray:
    return (0.3 * np.sin(0.1 * np.arange(samples) + np.arange(samples) ** 2 * 1e-5)).astype(np.float32)


def chunk(name: bytes, content: bytes, *, size: int | None = None, pad: bool = True) -> bytes:
    padding = b"\0" * (len(content) % 2 if pad else 0)
    return name + struct.pack("<I", len(content) if size is None else size) + content + padding


def form(bits: int, kind: int = 1, extra: bytes = b"") -> bytes:
    size = bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", kind, 1, RATE, RATE * size, size, bits) + extra)


def wav(*chunks: bytes, size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def read(path: Path, content: bytes) -> np.ndarray:
    path.write_bytes(content)
    samples, rate = read_sound(path)
    assert rate == RATE and samples.dtype == np.float32
    return samples


PCM = np.random.default_rng(0).integers(-(2**15), 2**15, 4001).astype("<i2")
"""Samples whose bytes are anything but chunks."""


@pytest.mark.parametrize("before", [b"", chunk(b"LIST", b"INFOISFT" + bytes(4))])
@pytest.mark.parametrize(("file_size", "sound_size"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_wav_of_a_pipe_is_read_to_its_end(
    tmp_path: Path, before: bytes, file_size: int | None, sound_size: int | None
) -> None:
    content = wav(before, form(16), chunk(b"data", PCM.tobytes(), size=sound_size), size=file_size)
    np.testing.assert_array_equal(read(tmp_path / "x.wav", content), PCM / np.float32(2**15))


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("sound_size", [None, 0, 0xFFFFFFFF])
@pytest.mark.parametrize("pad", [True, False])
def test_every_width_is_read_with_and_without_a_pad_byte(
    tmp_path: Path, bits: int, sound_size: int | None, pad: bool
) -> None:
    draw = np.random.default_rng(bits).integers(0, 256, (401, bits // 8)).astype(np.uint8)
    content = wav(form(bits), chunk(b"data", draw.tobytes(), size=sound_size, pad=pad))
    if bits == 8:
        expected = (draw[:, 0].astype(np.float64) - 128) / 128
        known = pad and sound_size is not None  # a pad byte of a stream is a sample like any other
        expected = np.append(expected, -1.0) if known else expected
    else:
        wide = np.zeros((401, 4), np.uint8)
        wide[:, 4 - bits // 8 :] = draw
        expected = wide.view("<i4")[:, 0] / 2.0**31
    np.testing.assert_allclose(read(tmp_path / "x.wav", content), expected, atol=1e-7)


@pytest.mark.parametrize("name", [b"LIST", b"bext", b"JUNK"])
@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("sound_size", [None, 0, 0xFFFFFFFF])
def test_chunks_before_the_sound_are_passed_over(
    tmp_path: Path, name: bytes, pad: bool, sound_size: int | None
) -> None:
    before = chunk(name, b"INFO" + b"\1" * 603, pad=pad)
    content = wav(before, form(16), before, chunk(b"data", PCM.tobytes(), size=sound_size))
    np.testing.assert_array_equal(read(tmp_path / "x.wav", content), PCM / np.float32(2**15))


def test_chunks_after_the_sound_are_no_sound(tmp_path: Path) -> None:
    after = chunk(b"LIST", b"INFO" * 9)
    content = wav(form(16), chunk(b"data", PCM.tobytes()), after)
    assert len(read(tmp_path / "x.wav", content)) == len(PCM)
    with pytest.raises(InputError, match="has no samples"):
        read(tmp_path / "x.wav", wav(form(16), chunk(b"data", b""), after))
    with pytest.raises(InputError, match="has no samples"):
        read(tmp_path / "x.wav", wav(form(16), chunk(b"data", b"")))


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
@pytest.mark.parametrize("known", [True, False])
def test_the_64_bit_forms_of_wav(tmp_path: Path, magic: bytes, known: bool) -> None:
    sizes = struct.pack("<QQQI", *((80, PCM.nbytes, len(PCM), 0) if known else (0, 0, 0, 0)))
    data = chunk(b"data", PCM.tobytes(), size=0xFFFFFFFF)
    content = wav(chunk(b"ds64", sizes), form(16), data, size=0xFFFFFFFF, magic=magic)
    np.testing.assert_array_equal(read(tmp_path / "x.wav", content), PCM / np.float32(2**15))
    if known:
        with pytest.raises(InputError, match="is truncated"):
            read(tmp_path / "x.wav", content[:-2])


def test_the_extensible_form_and_floats_of_a_pipe(tmp_path: Path) -> None:
    guid = struct.pack("<HHI", 22, 32, 4) + b"\3\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    for header in (form(32, 3), form(32, 0xFFFE, guid)):
        content = wav(header, chunk(b"data", tone().tobytes(), size=0), size=0)
        np.testing.assert_array_equal(read(tmp_path / "x.wav", content), tone())


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_an_au_file_of_a_pipe(tmp_path: Path, length: int) -> None:
    header = b".snd" + struct.pack(">IIIII", 24, length, 3, RATE, 1)
    samples = read(tmp_path / "x.au", header + PCM.astype(">i2").tobytes())
    np.testing.assert_array_equal(samples, PCM / np.float32(2**15))


@pytest.mark.parametrize(
    ("frames", "size"), [(0, 0), (0x3F800000, 0x7F000008), (4001, 0), (4001, 0xFFFFFFFF)]
)
def test_an_aiff_file_of_a_pipe(tmp_path: Path, frames: int, size: int) -> None:
    soundfile.write(tmp_path / "x.aiff", PCM, RATE, subtype="PCM_16")
    content = bytearray((tmp_path / "x.aiff").read_bytes())
    common, sound = content.index(b"COMM"), content.index(b"SSND")
    content[common + 10 : common + 14] = struct.pack(">I", frames)
    content[sound + 4 : sound + 8] = struct.pack(">I", size)
    np.testing.assert_array_equal(read(tmp_path / "x.aiff", bytes(content)), PCM / np.float32(2**15))


FORMATS = [
    ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"),
    ("WAVEX", "FLOAT"), ("RF64", "PCM_16"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("AIFF", "IMA_ADPCM"),
    ("AU", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "subtype"), FORMATS)
def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path, form: str, subtype: str) -> None:
    path = tmp_path / "x"
    soundfile.write(path, tone(16000), RATE, format=form, subtype=subtype)
    whole, content = soundfile.read(path, dtype="float32")[0], path.read_bytes()
    np.testing.assert_array_equal(read_sound(path)[0], whole)
    for size in {*np.linspace(0, len(content) - 1, 60, dtype=int), *range(len(content) - 40, len(content))}:
        path.write_bytes(content[:size])
        with pytest.raises(InputError):
            read_sound(path)
    for trailing in (bytes(1000), b"TAG" + bytes(125)):
        path.write_bytes(content + trailing)
        np.testing.assert_array_equal(read_sound(path)[0], whole)


def without_count(path: Path, rate: int, *, loud_first: bool) -> int:
    """Write an MP3 file without the frame that tells the number of frames; return the samples it has.

    The length is estimated from the bit rate of the first frame, which is low if it is silent.
    """
    half = 10 * rate
    noise = np.random.default_rng(0).normal(0, 0.2, half)
    sound = [noise, np.zeros(half)] if loud_first else [np.zeros(half), noise]
    soundfile.write(path, np.concatenate(sound), rate, format="MP3", bitrate_mode="VARIABLE")
    content = path.read_bytes()
    place = max(content.find(b"Xing"), content.find(b"Info"))
    path.write_bytes(content[content.index(content[:2], 10) :])
    return int.from_bytes(content[place + 8 : place + 12]) * (1152 if rate == 44100 else 576)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_an_mp3_without_a_count_is_read_whole_or_refused(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "x.mp3"
    written = without_count(path, rate, loud_first=False)
    assert len(read_sound(path)[0]) == written
    content = path.read_bytes()
    for cut in (1, 50, 333, len(content) // 2):
        path.write_bytes(content[:-cut])
        with pytest.raises(InputError, match="is truncated"):
            read_sound(path)
    written = without_count(path, rate, loud_first=True)
    assert len(soundfile.read(path)[0]) < written, "libsndfile drops some of it"
    with pytest.raises(InputError, match=r"x\.mp3 is truncated, or its header is wrong"):
        read_sound(path)


def test_several_streams_in_a_file_and_a_length_that_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "x.ogg"
    soundfile.write(path, tone(), RATE, format="OGG")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(InputError, match="several Ogg streams"):
        read_sound(path)
    soundfile.write(path, tone(), RATE, format="FLAC")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(InputError, match="does not declare its length"):
        read_sound(path)
    content[22:26] = b"\xff" * 4  # four thousand million samples in a few kilobytes
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"declares 4294967295 samples, more than {LONGEST}"):
        read_sound(path)


@pytest.mark.parametrize("form", ["WAV", "AIFF", "FLAC", "MP3"])
def test_a_tag_before_the_sound_takes_nothing_from_it(tmp_path: Path, form: str) -> None:
    plain, tagged = tmp_path / "plain", tmp_path / "tagged"
    soundfile.write(plain, tone(), RATE, format=form)
    tagged.write_bytes(b"ID3\4\0\0\0\0\1\0" + bytes(128) + plain.read_bytes())
    assert np.array_equal(read_sound(tagged)[0], read_sound(plain)[0])


def test_the_reason_is_libsndfiles_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(b"RIFF" + bytes(60))
    with pytest.raises(InputError) as refused:
        read_sound(path)
    assert re.fullmatch(
        rf"{re.escape(str(path))} cannot be read as a sound file: [^<>]+[^.]\.", str(refused.value)
    )
