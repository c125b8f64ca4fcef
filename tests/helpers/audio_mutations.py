"""AudioSet, damaged: its last clip of eval.json, its lists and its classes."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from mutating import Mutation, file_kinds, replaced, text
from signal_layouts import RATE, tone


def clip(root: Path, **changed: Any) -> None:
    """Change keys of the last clip of eval.json; None removes one."""
    listing = json.loads((root / "eval.json").read_text())
    listing["data"][-1] = {
        key: value for key, value in (listing["data"][-1] | changed).items() if value is not None
    }
    (root / "eval.json").write_text(json.dumps(listing))


def listed_again(root: Path, **changed: Any) -> None:
    """List the first clip of train.json again, with keys changed."""
    listing = json.loads((root / "train.json").read_text())
    listing["data"].append(listing["data"][0] | changed)
    (root / "train.json").write_text(json.dumps(listing))


def wave(root: Path, content: Any = None, **options: Any) -> None:
    """Write bytes or samples as the last clip of eval.json, in another format if told so."""
    if isinstance(content, bytes):
        (root / "eval/1.wav").write_bytes(content)
    else:
        soundfile.write(
            root / "eval/1.wav", content, options.pop("rate", RATE), **{"format": "WAV", **options}
        )


def patched(root: Path, *changes: tuple[int, bytes], cut: int = 0, extra: bytes = b"") -> None:
    content = bytearray((root / "eval/1.wav").read_bytes())
    for place, value in changes:
        content[place : place + len(value)] = value
    (root / "eval/1.wav").write_bytes(bytes(content[: len(content) - cut]) + extra)


def moved(root: Path, name: str, *, listed: str | None = None) -> None:
    """Move the last clip of eval.json and list it by its new name."""
    shutil.move(root / "eval/1.wav", root / name)
    clip(root, wav=name if listed is None else listed)


def size(value: int) -> bytes:
    return struct.pack("<I", value)


FLOATS = {"subtype": "FLOAT"}
HUGE_LISTINGS = {"digits": '{"data": [' + "9" * 100_000 + "]}", "deep": '{"data": ' + "[" * 100_000}

AUDIOSET: list[Mutation] = [
    ("nothing", "sound", lambda r: None),
    *file_kinds("eval/1.wav", empty="quick"),
    *file_kinds("eval.json"),
    *file_kinds("class_labels_indices.csv"),
    ("a stream of sox", "sound", lambda r: patched(r, (4, size(0x7FFFF024)), (40, size(0x7FFFF000)))),
    ("a stream of FFmpeg", "sound", lambda r: patched(r, (4, b"\xff" * 4), (40, b"\xff" * 4))),
    ("a stream of arecord", "sound", lambda r: patched(r, (4, size(0x80000024)), (40, size(0x80000000)))),
    ("sizes of zero", "sound", lambda r: patched(r, (4, bytes(4)), (40, bytes(4)))),
    ("sound of size zero", "sound", lambda r: patched(r, (40, bytes(4)))),
    ("a file of size zero", "sound", lambda r: patched(r, (4, bytes(4)))),
    ("more after the sound", "sound", lambda r: patched(r, extra=b"LIST" + size(4) + b"INFO")),
    ("garbage after the sound", "sound", lambda r: patched(r, extra=b"\1\2\3")),
    ("cut by a byte", "quick", lambda r: patched(r, cut=1)),
    ("cut by half", "quick", lambda r: patched(r, cut=4000)),
    ("cut in the header", "quick", lambda r: patched(r, cut=8010)),
    ("cut before the sound", "quick", lambda r: patched(r, cut=8000)),
    ("a rate of 0", "quick", lambda r: patched(r, (24, size(0)))),
    ("a rate of 1", "quick", lambda r: patched(r, (24, size(1)))),
    ("a rate of 7", "quick", lambda r: patched(r, (24, size(7)))),
    ("a rate of 2^31 - 1", "quick", lambda r: patched(r, (24, size(2**31 - 1)))),
    ("a rate of 2^32 - 1", "quick", lambda r: patched(r, (24, size(2**32 - 1)))),
    ("a prime rate", "sound", lambda r: patched(r, (24, size(44101)))),
    ("no channel", "quick", lambda r: patched(r, (22, b"\0\0"))),
    ("65535 channels", "quick", lambda r: patched(r, (22, b"\xff\xff"))),
    ("12 channels", "sound", lambda r: wave(r, np.tile(tone()[:, None], 12))),
    ("silence", "sound", lambda r: wave(r, np.zeros(4000))),
    ("one sample", "quick", lambda r: wave(r, np.zeros(1))),
    ("399 samples", "quick", lambda r: wave(r, tone(399))),
    ("400 samples", "sound", lambda r: wave(r, tone(400))),
    ("no sample", "quick", lambda r: wave(r, np.zeros(0))),
    ("above full scale", "sound", lambda r: wave(r, 3 * tone(), **FLOATS)),
    ("integers as floats", "quick", lambda r: wave(r, 30000 * tone(), **FLOATS)),
    ("1e30", "quick", lambda r: wave(r, np.full(4000, 1e30), **FLOATS)),
    ("1e300", "quick", lambda r: wave(r, np.full(4000, 1e300), subtype="DOUBLE")),
    ("NaN", "quick", lambda r: wave(r, np.full(4000, np.nan), **FLOATS)),
    ("one infinite sample", "quick", lambda r: wave(r, np.append(tone(), -np.inf), **FLOATS)),
    ("another rate", "sound", lambda r: wave(r, tone(), rate=44100)),
    ("text", "quick", lambda r: wave(r, b"no sound at all")),
    ("a raw format", "quick", lambda r: wave(r, tone(), format="PAF")),
    *((f"WAV {kind}", "sound", lambda r, kind=kind: wave(r, tone(), subtype=kind))
      for kind in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")),
    *((kind, "sound", lambda r, kind=kind: wave(r, tone(), format=kind))
      for kind in ("WAVEX", "RF64", "AIFF", "AU", "FLAC", "OGG", "MP3")),
    *((f"{kind} cut", "quick", lambda r, kind=kind: (wave(r, tone(), format=kind), patched(r, cut=300)))
      for kind in ("WAVEX", "RF64", "AIFF", "AU", "FLAC", "OGG", "MP3")),
    ("not JSON", "quick", text("eval.json", "{")),
    ("not UTF-8", "quick", text("eval.json", b'{"data": "\xff"}')),
    ("a mark at the start", "sound", replaced("eval.json", "{", "\ufeff{")),
    ("a list alone", "quick", text("eval.json", "[]")),
    ("no clip", "quick", text("eval.json", '{"data": []}')),
    ("clips by name", "quick", text("eval.json", '{"data": {"a": 1}}')),
    ("nothing in data", "quick", text("eval.json", '{"data": null}')),
    *((kind, "quick", text("eval.json", content)) for kind, content in HUGE_LISTINGS.items()),
    ("no labels", "quick", lambda r: clip(r, labels=None)),
    ("a list of labels", "quick", lambda r: clip(r, labels=["/m/b"])),
    ("empty labels", "quick", lambda r: clip(r, labels="")),
    ("a trailing comma", "quick", lambda r: clip(r, labels="/m/b,")),
    ("a blank in labels", "quick", lambda r: clip(r, labels="/m/a, /m/b")),
    ("a label again", "sound", lambda r: clip(r, labels="/m/b,/m/b")),
    ("an unknown label", "quick", lambda r: clip(r, labels="/m/b,/m/z")),
    ("more keys", "sound", lambda r: clip(r, start=float("nan"))),
    ("a number as path", "quick", lambda r: clip(r, wav=3)),
    ("an empty path", "quick", lambda r: clip(r, wav="")),
    ("a clip again", "quick", lambda r: clip(r, wav="eval/0.wav")),
    ("a clip again by another name", "quick", lambda r: clip(r, wav="./eval/../eval//0.wav")),
    ("a clip to train on again", "sound", listed_again),
    ("a clip to train on again, labels in another order", "sound",
     lambda r: listed_again(r, wav="./train/0.wav", labels="/m/b,/m/a")),
    ("a clip to train on again, with other labels", "quick", lambda r: listed_again(r, labels="/m/b")),
    ("an absolute path inside", "sound", lambda r: clip(r, wav=str(r / "eval/1.wav"))),
    ("an absolute path elsewhere", "sound", lambda r: moved(r, str(r.parent / "other.wav"))),
    ("a path out of the root", "sound", lambda r: moved(r, "../other.wav")),
    ("dots and slashes", "sound", lambda r: clip(r, wav=".//eval/.././eval/1.wav")),
    ("a blank at the end", "quick", lambda r: clip(r, wav="eval/1.wav ")),
    ("a name with blanks", "sound", lambda r: moved(r, "eval/ a b .wav")),
    ("a name in no encoding", "sound", lambda r: moved(r, "eval/caf\udce9.wav")),
    ("half a pair as name", "quick", lambda r: clip(r, wav="eval/\ud800.wav")),
    ("half a pair as folder", "quick", lambda r: clip(r, wav="\ud800/1.wav")),
    ("a null byte", "quick", lambda r: clip(r, wav="eval/1\0.wav")),
    ("a null byte in a folder", "quick", lambda r: clip(r, wav="ev\0al/1.wav")),
    ("a long name", "quick", lambda r: clip(r, wav="eval/" + "a" * 5000)),
    ("a long folder", "quick", lambda r: clip(r, wav="a" * 5000 + "/1.wav")),
    ("backslashes", "quick", lambda r: clip(r, wav="eval\\1.wav")),
    ("a drive", "quick", lambda r: clip(r, wav="C:/eval/1.wav")),
    ("a home", "quick", lambda r: clip(r, wav="~/1.wav")),
    ("a folder as clip", "quick", lambda r: clip(r, wav="eval")),
    ("a slash at the end", "quick", lambda r: clip(r, wav="eval/1.wav/")),
    ("the root as clip", "quick", lambda r: clip(r, wav=".")),
    ("a link to the clip", "sound", lambda r: ((r / "l.wav").symlink_to("eval/1.wav"), clip(r, wav="l.wav"))),
    ("a mark before the header", "sound", replaced("class_labels_indices.csv", "index", "\ufeffindex")),
    ("lines of another system", "sound", replaced("class_labels_indices.csv", "\n", "\r\n", 9)),
    ("a blank line", "sound", replaced("class_labels_indices.csv", "Two\n", "Two\n\n")),
    ("no header", "quick", replaced("class_labels_indices.csv", "index,mid,display_name\n", "")),
    ("a mid twice", "quick", replaced("class_labels_indices.csv", "/m/b", "/m/a")),
    ("a gap", "quick", replaced("class_labels_indices.csv", "1,/m/b", "2,/m/b")),
    ("one class more", "quick", replaced("class_labels_indices.csv", "Two\n", "Two\n2,/m/c,Three\n")),
    ("an open quote", "quick", replaced("class_labels_indices.csv", '"One, two"', '"One, two')),
]  # fmt: skip
