"""What every layout of signals promises, on mutated datasets.

On whatever `check(full=True)` accepts, the reader reads every item, all finite, perfect predictions score
exactly 100 and a manifest can be built. What it refuses, it names. On whatever the quick form accepts, an item
is finite or an `InputError`: nothing else comes out of a reader.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from m2pt.datasets import layouts
from m2pt.datasets.manifest import build_manifest
from m2pt.errors import InputError
from m2pt.tasks.classification import Classification
from m2pt.tasks.multilabel_classification import MultilabelClassification
from m2pt.tasks.part_segmentation import PartSegmentation
from m2pt.tasks.point_segmentation import PointSegmentation

RATE = 16000
MUG, CHAIR = "03797390", "03001627"
draw = np.random.default_rng(0)

# ---- sound datasets of each layout -------------------------------------------------------------------------


def tone(samples: int = 4000) -> np.ndarray:
    return (0.3 * np.sin(np.arange(samples) * 0.1)).astype(np.float32)


def build_audioset(root: Path) -> None:
    (root / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/a,"One, two"\n1,/m/b,Two\n')
    for split, relative in (("train", "train.json"), ("eval", "eval.json")):
        (root / split).mkdir()
        for number in range(2):
            soundfile.write(root / f"{split}/{number}.wav", tone(), RATE, subtype="PCM_16")
        clips = [
            {"wav": f"{split}/{n}.wav", "labels": label} for n, label in enumerate(("/m/a,/m/b", "/m/b"))
        ]
        (root / relative).write_text(json.dumps({"data": clips}))


def cloud(points: int = 40) -> np.ndarray:
    return draw.normal(0, 0.3, (points, 3)).astype(np.float32)


def build_shapenet55(root: Path) -> None:
    lists = root / "ShapeNet55-34/ShapeNet-55"
    lists.mkdir(parents=True)
    (root / "shapenet_pc").mkdir()
    for split in ("train", "test"):
        names = [f"{synset}-{split}.npy" for synset in (MUG, CHAIR)]
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            np.save(root / "shapenet_pc" / name, cloud())


def shape_text(first_part: int, points: int = 30) -> str:
    rows = [(*point, 0, 0, 1, first_part + number % 2) for number, point in enumerate(cloud(points))]
    return "".join(" ".join(f"{value:.6g}" for value in row) + "\n" for row in rows)


def build_shapenetpart(root: Path) -> None:
    (root / "synsetoffset2category.txt").write_text(f"Chair\t{CHAIR}\nMug\t{MUG}\n")
    (root / "train_test_split").mkdir()
    for synset, part in ((CHAIR, 12), (MUG, 36)):
        (root / synset).mkdir()
        for split in ("train", "val", "test"):
            (root / synset / f"{split}.txt").write_text(shape_text(part))
    for split in ("train", "val", "test"):
        entries = [f"shape_data/{synset}/{split}" for synset in (CHAIR, MUG)]
        (root / f"train_test_split/shuffled_{split}_file_list.json").write_text(json.dumps(entries))


def partnet_arrays(shapes: int = 2, points: int = 30) -> dict[str, Any]:
    return {
        "data": draw.normal(0, 0.3, (shapes, points, 3)).astype(np.float32),
        "data_num": np.full(shapes, points),
        "label_seg": np.arange(shapes * points, dtype=np.uint8).reshape(shapes, points) % 3,
    }


def write_h5(path: Path, **arrays: Any) -> None:
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value


def build_partnet(root: Path) -> None:
    folder = root / "sem_seg_h5/Bag-1"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        write_h5(folder / f"{split}-00.h5", **partnet_arrays())
        (folder / f"{split}_files.txt").write_text(f"./{split}-00.h5\n")


def build_text(root: Path) -> None:
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("Some words to read, 50 bytes or so, of plain text.\n" * 3)


# ---- what a perfect model scores ---------------------------------------------------------------------------


def audioset_scores(items: list[Any]) -> dict[str, float]:
    labels = torch.stack([item[1] for item in items])
    return MultilabelClassification(2).summarize([(labels, labels)], None)


def shapenet55_scores(items: list[Any]) -> dict[str, float]:
    clouds, labels = torch.stack([item[0] for item in items]), torch.tensor([item[1] for item in items])
    task = Classification(2)
    return task.summarize([task.measure(lambda _: functional.one_hot(labels, 2), (clouds, labels))], None)


def shapenetpart_scores(items: list[Any]) -> dict[str, float]:
    labels = torch.stack([item[2] for item in items])
    task = PartSegmentation()
    return task.summarize([task.compare(functional.one_hot(labels, 50).float(), labels)], None)


def partnet_scores(items: list[Any]) -> dict[str, float]:
    labels = torch.stack([item[1] for item in items])
    task = PointSegmentation()
    return task.summarize([task.count(functional.one_hot(labels, 3).float(), labels)], None)


@dataclass(frozen=True)
class Layout:
    build: Callable[[Path], None]
    classes: int
    view: dict[str, Any]
    augmentation: dict[str, Any]
    scores: Callable[[list[Any]], dict[str, float]] | None


SHIFTED = {"scale": (0.8, 1.25), "translate": 0.1}
LAYOUTS = {
    "audioset": Layout(
        build_audioset,
        2,
        {"frames": 30, "mel_bins": 16},
        {"roll_magnitude": True, "mixup": 0.5, "time_mask": 3, "frequency_mask": 3},
        audioset_scores,
    ),
    "shapenet55": Layout(build_shapenet55, 2, {"points": 20}, SHIFTED, shapenet55_scores),
    "shapenetpart": Layout(build_shapenetpart, 50, {"points": 20}, SHIFTED, shapenetpart_scores),
    "partnet": Layout(build_partnet, 3, {"points": 20, "subset": "Bag-1"}, SHIFTED, partnet_scores),
    "text": Layout(build_text, 256, {"length": 20}, {}, None),
}


def read(name: str, root: Path, split: str) -> list[Any]:
    layout = LAYOUTS[name]
    for augmentation in (layout.augmentation, None):
        reader = layouts.reader(name)(
            root, split, num_classes=layout.classes, augmentation=augmentation, **layout.view
        )
        items = [reader[index] for index in range(len(reader))]
        assert items
        for item in items:
            assert all(torch.as_tensor(part).isfinite().all() for part in item)
    return items


def judge(name: str, root: Path) -> str:
    """Return the form that refuses a dataset, "quick" or "full", or "sound", and keep the promise above."""
    layout = LAYOUTS[name]
    quick, full = (layouts.check(name, root, num_classes=layout.classes, full=full) for full in (False, True))
    if not full:
        assert not quick
        read(name, root, "train")
        items = read(name, root, "val")
        if layout.scores is not None:
            assert set(layout.scores(items).values()) == {100.0}
        assert build_manifest(root, name, full=True)["files"]
        json.dumps(build_manifest(root, name, full=False)).encode()
        return "sound"
    assert all(fault.endswith(".") and "\n" not in fault for fault in full)
    assert any(str(root) in fault for fault in full), full
    if quick:
        return "quick"
    for split in ("train", "val"):
        try:
            read(name, root, split)
        except InputError as error:
            assert str(root) in str(error)
    return "full"


# ---- mutations ---------------------------------------------------------------------------------------------


def clip(root: Path, **changed: Any) -> None:
    """Change keys of the last clip of eval.json; None removes one."""
    listing = json.loads((root / "eval.json").read_text())
    listing["data"][-1] = {
        key: value for key, value in (listing["data"][-1] | changed).items() if value is not None
    }
    (root / "eval.json").write_text(json.dumps(listing))


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


def text(relative: str, content: str | bytes) -> Callable[[Path], Any]:
    encoded = content.encode() if isinstance(content, str) else content
    return lambda root: (root / relative).write_bytes(encoded)


def replaced(relative: str, old: str, new: str, count: int = 1) -> Callable[[Path], Any]:
    def mutate(root: Path) -> None:
        before = (root / relative).read_bytes()
        after = before.replace(old.encode(), new.encode(), count)
        assert after != before
        (root / relative).write_bytes(after)

    return mutate


def special(relative: str, kind: str) -> Callable[[Path], Any]:
    """Put a folder, a pipe or a link to nowhere or to itself in the place of a file."""

    def mutate(root: Path) -> None:
        path = root / relative
        path.unlink()
        make = {
            "folder": path.mkdir,
            "pipe": lambda: os.mkfifo(path),
            "broken": lambda: path.symlink_to("nowhere"),
            "loop": lambda: path.symlink_to(path.name),
            "gone": lambda: None,
            "empty": path.touch,
        }
        make[kind]()

    return mutate


def file_kinds(relative: str, *, empty: str = "quick") -> Iterator[tuple[str, str, Callable[[Path], Any]]]:
    for kind in ("folder", "pipe", "broken", "loop", "gone"):
        yield f"{relative} {kind}", "quick", special(relative, kind)
    yield f"{relative} empty", empty, special(relative, "empty")


FLOATS = {"subtype": "FLOAT"}
HUGE_LISTINGS = {"digits": '{"data": [' + "9" * 100_000 + "]}", "deep": '{"data": ' + "[" * 100_000}

AUDIOSET = [
    ("nothing", "sound", lambda r: None),
    *file_kinds("eval/1.wav", empty="full"),
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
    ("cut by a byte", "full", lambda r: patched(r, cut=1)),
    ("cut by half", "full", lambda r: patched(r, cut=4000)),
    ("cut in the header", "full", lambda r: patched(r, cut=8010)),
    ("cut before the sound", "full", lambda r: patched(r, cut=8000)),
    ("a rate of 0", "full", lambda r: patched(r, (24, size(0)))),
    ("a rate of 1", "full", lambda r: patched(r, (24, size(1)))),
    ("a rate of 7", "full", lambda r: patched(r, (24, size(7)))),
    ("a rate of 2^31 - 1", "full", lambda r: patched(r, (24, size(2**31 - 1)))),
    ("a rate of 2^32 - 1", "full", lambda r: patched(r, (24, size(2**32 - 1)))),
    ("a prime rate", "sound", lambda r: patched(r, (24, size(44101)))),
    ("no channel", "full", lambda r: patched(r, (22, b"\0\0"))),
    ("65535 channels", "full", lambda r: patched(r, (22, b"\xff\xff"))),
    ("12 channels", "sound", lambda r: wave(r, np.tile(tone()[:, None], 12))),
    ("silence", "sound", lambda r: wave(r, np.zeros(4000))),
    ("one sample", "full", lambda r: wave(r, np.zeros(1))),
    ("399 samples", "full", lambda r: wave(r, tone(399))),
    ("400 samples", "sound", lambda r: wave(r, tone(400))),
    ("no sample", "full", lambda r: wave(r, np.zeros(0))),
    ("above full scale", "sound", lambda r: wave(r, 3 * tone(), **FLOATS)),
    ("integers as floats", "full", lambda r: wave(r, 30000 * tone(), **FLOATS)),
    ("1e30", "full", lambda r: wave(r, np.full(4000, 1e30), **FLOATS)),
    ("1e300", "full", lambda r: wave(r, np.full(4000, 1e300), subtype="DOUBLE")),
    ("NaN", "full", lambda r: wave(r, np.full(4000, np.nan), **FLOATS)),
    ("one infinite sample", "full", lambda r: wave(r, np.append(tone(), -np.inf), **FLOATS)),
    ("another rate", "sound", lambda r: wave(r, tone(), rate=44100)),
    ("text", "full", lambda r: wave(r, b"no sound at all")),
    ("a raw format", "full", lambda r: wave(r, tone(), format="PAF")),
    *((f"WAV {kind}", "sound", lambda r, kind=kind: wave(r, tone(), subtype=kind))
      for kind in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")),
    *((kind, "sound", lambda r, kind=kind: wave(r, tone(), format=kind))
      for kind in ("WAVEX", "RF64", "AIFF", "AU", "FLAC", "OGG", "MP3")),
    *((f"{kind} cut", "full", lambda r, kind=kind: (wave(r, tone(), format=kind), patched(r, cut=300)))
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

CLOUD = f"shapenet_pc/{MUG}-test.npy"
CLOUDS = "ShapeNet55-34/ShapeNet-55/test.txt"


def saved(array: Any) -> Callable[[Path], Any]:
    return lambda root: np.save(root / CLOUD, array, allow_pickle=True)


def with_value(value: float, dtype: Any = np.float32) -> np.ndarray:
    changed = cloud().astype(dtype)
    changed[7, 1] = value
    return changed


def with_header(root: Path, shape: str) -> None:
    content = (root / CLOUD).read_bytes()
    (root / CLOUD).write_bytes(
        content.replace(b"(40, 3), }" + b" " * len(shape), f"({shape}, 3), }}".encode() + b" " * 2)
    )


SHAPENET55 = [
    ("nothing", "sound", lambda r: None),
    *file_kinds(CLOUD),
    *file_kinds(CLOUDS),
    ("objects", "quick", saved(np.array([None]))),
    ("integers", "quick", saved(np.ones((40, 3), np.int64))),
    ("complex numbers", "quick", saved(np.ones((40, 3), complex))),
    ("truth values", "quick", saved(np.ones((40, 3), bool))),
    ("records", "quick", saved(np.zeros((40, 3), [("x", "f4")]))),
    ("strings", "quick", saved(np.full((40, 3), "1.0"))),
    ("double precision", "sound", saved(cloud().astype(np.float64))),
    ("half precision", "sound", saved(cloud().astype(np.float16))),
    ("big endian", "sound", saved(cloud().astype(">f4"))),
    ("columns first", "sound", saved(np.asfortranarray(cloud()))),
    ("one axis", "quick", saved(np.ones(3, np.float32))),
    ("four columns", "quick", saved(np.ones((40, 4), np.float32))),
    ("no point", "quick", saved(np.ones((0, 3), np.float32))),
    ("NaN", "full", saved(with_value(np.nan))),
    ("infinity", "full", saved(with_value(np.inf))),
    ("1e30", "full", saved(with_value(1e30))),
    ("1e300", "full", saved(with_value(1e300, np.float64))),
    ("1e6", "full", saved(with_value(1e6))),
    ("1e-30", "sound", saved(with_value(1e-30))),
    ("points all equal", "full", saved(np.full((40, 3), 0.1, np.float32))),
    ("points all tiny", "full", saved(cloud() * np.float32(1e-20))),
    ("a plane", "sound", saved(cloud() * np.float32([1, 1, 0]))),
    ("truncated", "quick", lambda r: (r / CLOUD).write_bytes((r / CLOUD).read_bytes()[:-1])),
    ("10^12 points announced", "quick", lambda r: with_header(r, "1" + "0" * 12)),
    ("an archive", "quick", lambda r: np.savez((r / CLOUD).open("wb"), cloud())),
    ("text", "quick", text(CLOUD, "0 0 0\n")),
    ("lines of another system", "sound", replaced(CLOUDS, "\n", "\r\n", 9)),
    ("a mark at the start", "sound", replaced(CLOUDS, MUG, "\ufeff" + MUG)),
    ("no end of line", "sound", lambda r: (r / CLOUDS).write_text((r / CLOUDS).read_text().rstrip())),
    ("not UTF-8", "quick", text(CLOUDS, b"\xff\xfe")),
    ("a blank at the end", "quick", replaced(CLOUDS, ".npy", ".npy ")),
    ("a blank line", "quick", replaced(CLOUDS, "\n", "\n\n")),
    ("no dash", "quick", replaced(CLOUDS, "-", "_")),
    ("an absolute path", "quick", replaced(CLOUDS, MUG, "/" + MUG)),
    ("a cloud again", "quick", lambda r: (r / CLOUDS).open("a").write(f"{MUG}-test.npy\n")),
    ("a cloud of the other list", "quick", lambda r: (r / CLOUDS).open("a").write(f"{MUG}-train.npy\n")),
    ("a null byte", "quick", replaced(CLOUDS, f"{MUG}-", f"{MUG}-\0")),
    ("an empty class", "quick", text(CLOUDS, f"{MUG}-test.npy\n")),
]

SHAPE = f"{MUG}/test.txt"
SHAPES = "train_test_split/shuffled_test_file_list.json"
FIRST = "0.5 0 0 0 0 1 36\n"


def rows(*lines: str, first: str = FIRST) -> Callable[[Path], Any]:
    return text(SHAPE, first + "".join(f"{line}\n" for line in lines))


SHAPENETPART = [
    ("nothing", "sound", lambda r: None),
    *file_kinds(SHAPE),
    *file_kinds(SHAPES),
    *file_kinds("synsetoffset2category.txt"),
    ("two rows", "sound", rows("0 1 0 0 0 1 37")),
    ("one part alone", "sound", rows("0 1 0 0 0 1 36.000000")),
    ("half a part", "full", rows("0 1 0 0 0 1 36.5")),
    ("a part of another category", "full", rows("0 1 0 0 0 1 12")),
    ("a negative part", "full", rows("0 1 0 0 0 1 -1")),
    ("a huge part", "full", rows("0 1 0 0 0 1 1e30")),
    ("NaN as part", "full", rows("0 1 0 0 0 1 nan")),
    ("NaN", "full", rows("0 nan 0 0 0 1 36")),
    ("infinity", "full", rows("0 -inf 0 0 0 1 36")),
    ("1e30", "full", rows("0 1e30 0 0 0 1 36")),
    ("1e39", "full", rows("0 1e39 0 0 0 1 36")),
    ("one point", "full", rows()),
    ("points all equal", "full", rows(FIRST.strip(), FIRST.strip())),
    ("six columns", "quick", rows(first="0 0 0 0 0 36\n")),
    ("six columns later", "full", rows("0 0 0 0 0 36")),
    ("commas", "quick", rows(first="0,0,0,0,0,1,36\n")),
    ("words", "full", rows("x y z 0 0 1 36")),
    ("blank lines", "sound", rows("", "0 1 0 0 0 1 36", "")),
    ("not UTF-8", "full", lambda r: (r / SHAPE).write_bytes(FIRST.encode() + b"\xff\n")),
    ("a null byte", "full", rows("0 1 0 0 0 1 36\0")),
    ("a shape again", "quick", text(SHAPES, json.dumps([f"shape_data/{s}/test" for s in (MUG, CHAIR, MUG)]))),
    ("a shape of another list", "quick", replaced(SHAPES, "test", "train")),
    ("an absolute path", "quick", replaced(SHAPES, "shape_data", "/shape_data")),
    ("dots", "quick", replaced(SHAPES, f"{MUG}/test", f"{MUG}/..")),
    ("a null byte in a list", "quick", replaced(SHAPES, f"{MUG}/test", f"{MUG}/te\\u0000st")),
    ("half a pair", "quick", replaced(SHAPES, f"{MUG}/test", f"{MUG}/\\ud800")),
    ("a number", "quick", text(SHAPES, "[7]")),
    ("a mapping", "quick", text(SHAPES, "{}")),
    ("a mark at the start", "sound", replaced(SHAPES, "[", "\ufeff[")),
    ("digits", "quick", text(SHAPES, "[" + "9" * 100_000 + "]")),
    ("deep", "quick", text(SHAPES, "[" * 100_000)),
    ("a category again", "quick", replaced("synsetoffset2category.txt", "Mug", "Chair")),
    ("a synset again", "quick", replaced("synsetoffset2category.txt", MUG, CHAIR)),
    ("an unknown category", "quick", replaced("synsetoffset2category.txt", "Mug", "Sofa")),
    ("lines of another system", "sound", replaced("synsetoffset2category.txt", "\n", "\r\n", 9)),
    ("a mark before the categories", "sound", replaced("synsetoffset2category.txt", "Chair", "\ufeffChair")),
]

H5 = "sem_seg_h5/Bag-1/test-00.h5"
FILES = "sem_seg_h5/Bag-1/test_files.txt"


def arrays(**changed: Any) -> Callable[[Path], Any]:
    """Write other arrays to the test file; None leaves one out."""

    def mutate(root: Path) -> None:
        kept = {key: value for key, value in (partnet_arrays() | changed).items() if value is not None}
        write_h5(root / H5, **kept)

    return mutate


def cloud_with(value: float) -> np.ndarray:
    changed = partnet_arrays()["data"]
    changed[1, 3, 2] = value
    return changed


def linked(root: Path, link: Any) -> None:
    (root / H5).rename(root / "sem_seg_h5/Bag-1/elsewhere.h5")
    write_h5(root / H5, **{key: value for key, value in partnet_arrays().items() if key != "data"})
    with h5py.File(root / H5, "a") as file:
        file["data"] = link


def announced(root: Path, shape: tuple[int, ...], chunks: Any = True) -> None:
    """Announce arrays of any size that hold nothing."""
    (root / H5).unlink()
    with h5py.File(root / H5, "w") as file:
        file.create_dataset("data", (*shape, 3), "f4", chunks=chunks)
        file.create_dataset("data_num", shape[:1], "i4", chunks=True, fillvalue=shape[1])
        file.create_dataset("label_seg", shape, "u1", chunks=True)


def in_another_file(root: Path) -> None:
    source = h5py.VirtualSource(str(root / "sem_seg_h5/Bag-1/train-00.h5"), "data", (2, 30, 3))
    layout = h5py.VirtualLayout((2, 30, 3), "f4")
    layout[:] = source
    with h5py.File(root / H5, "a") as file:
        del file["data"]
        file.create_virtual_dataset("data", layout)


PARTNET = [
    ("nothing", "sound", lambda r: None),
    *file_kinds(H5),
    *file_kinds(FILES),
    ("fewer points", "sound", arrays(data_num=np.array([30, 20]))),
    ("no point", "full", arrays(data_num=np.array([30, 0]))),
    ("negative points", "full", arrays(data_num=np.array([30, -1]))),
    ("points beyond those stored", "full", arrays(data_num=np.array([30, 31]))),
    ("a class beyond", "full", arrays(label_seg=np.full((2, 30), 3))),
    ("a negative class", "full", arrays(label_seg=np.full((2, 30), -1))),
    ("a huge class", "full", arrays(label_seg=np.full((2, 30), 2**64 - 1, np.uint64))),
    ("nothing labelled", "full", arrays(label_seg=np.zeros((2, 30), int))),
    ("one shape unlabelled", "sound", arrays(label_seg=np.repeat([[0], [2]], 30, axis=1))),
    ("labels as floats", "quick", arrays(label_seg=np.zeros((2, 30)))),
    ("labels as truth values", "quick", arrays(label_seg=np.zeros((2, 30), bool))),
    ("points as integers", "quick", arrays(data=np.zeros((2, 30, 3), int))),
    ("numbers as strings", "quick", arrays(data_num=np.array([b"30", b"30"]))),
    ("double precision", "sound", arrays(data=partnet_arrays()["data"].astype(float))),
    ("NaN", "full", arrays(data=cloud_with(np.nan))),
    ("infinity", "full", arrays(data=cloud_with(np.inf))),
    ("1e30", "full", arrays(data=cloud_with(1e30))),
    ("points all equal", "full", arrays(data=np.ones((2, 30, 3), np.float32))),
    ("no array", "quick", arrays(data=None)),
    ("a number as array", "quick", arrays(data=1.0)),
    ("an empty array", "quick", arrays(data=h5py.Empty("f4"))),
    ("no shape", "quick", arrays(**partnet_arrays(0))),
    ("no stored point", "quick", arrays(**partnet_arrays(2, 0))),
    ("four coordinates", "quick", arrays(data=np.zeros((2, 30, 4), np.float32))),
    ("a group", "quick", lambda r: linked(r, h5py.SoftLink("/"))),
    ("a link to nowhere", "quick", lambda r: linked(r, h5py.SoftLink("/nowhere"))),
    ("a link to another file", "quick", lambda r: linked(r, h5py.ExternalLink("elsewhere.h5", "/data"))),
    ("points of another file", "quick", in_another_file),
    ("10^12 shapes announced", "quick", lambda r: announced(r, (10**12, 30))),
    ("10^9 points announced", "quick", lambda r: announced(r, (2, 10**9))),
    ("a million shapes of nothing", "full", lambda r: announced(r, (10**6, 1000))),
    ("huge pieces", "quick", lambda r: announced(r, (10**5, 1000), chunks=(10**5, 1000, 3))),
    ("truncated", "quick", lambda r: (r / H5).write_bytes((r / H5).read_bytes()[:-500])),
    ("text", "quick", text(H5, "no data")),
    ("a file again", "quick", text(FILES, "test-00.h5\n./test-00.h5\n")),
    ("a file of the other list", "quick", text(FILES, "test-00.h5\ntrain-00.h5\n")),
    ("an absolute path", "quick", text(FILES, "/test-00.h5\n")),
    ("lines of another system", "sound", text(FILES, "test-00.h5\r\n")),
    ("a mark at the start", "sound", text(FILES, "\ufefftest-00.h5\n")),
    ("not UTF-8", "quick", text(FILES, b"\xff.h5\n")),
    ("a null byte", "quick", text(FILES, "te\0st-00.h5\n")),
    ("a missing file in the unused list", "quick", text("sem_seg_h5/Bag-1/val_files.txt", "x.h5\n")),
]

TEXT = [
    ("nothing", "sound", lambda r: None),
    *file_kinds("val.txt"),
    ("not UTF-8", "full", text("val.txt", b"\xff" * 60)),
    ("a mark at the start", "sound", text("val.txt", "\ufeff" + "word " * 20)),
    ("null bytes", "sound", text("val.txt", bytes(60))),
    ("half a character", "full", text("val.txt", "ä".encode() * 30 + b"\xc3")),
]

MUTATIONS = {
    "audioset": AUDIOSET,
    "shapenet55": SHAPENET55,
    "shapenetpart": SHAPENETPART,
    "partnet": PARTNET,
    "text": TEXT,
}


@pytest.mark.parametrize(
    ("name", "expected", "mutate"),
    [
        pytest.param(name, expected, mutate, id=f"{name}: {what}")
        for name, mutations in MUTATIONS.items()
        for what, expected, mutate in mutations
    ],
)
def test_a_mutated_dataset_is_sound_or_refused_as_it_should_be(
    name: str, expected: str, mutate: Callable[[Path], Any], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    LAYOUTS[name].build(root)
    mutate(root)
    assert judge(name, root) == expected
