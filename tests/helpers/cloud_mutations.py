"""ShapeNet-55 and ShapeNetPart, damaged, and text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mutating import Mutation, file_kinds, replaced, text
from signal_layouts import CHAIR, MUG, cloud

CLOUD = f"ShapeNet55-34/shapenet_pc/{MUG}-test.npy"
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


SHAPENET55: list[Mutation] = [
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
    ("NaN", "quick", saved(with_value(np.nan))),
    ("infinity", "quick", saved(with_value(np.inf))),
    ("1e30", "quick", saved(with_value(1e30))),
    ("1e300", "quick", saved(with_value(1e300, np.float64))),
    ("1e6", "quick", saved(with_value(1e6))),
    ("1e-30", "sound", saved(with_value(1e-30))),
    ("points all equal", "quick", saved(np.full((40, 3), 0.1, np.float32))),
    ("points all tiny", "quick", saved(cloud() * np.float32(1e-20))),
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


SHAPENETPART: list[Mutation] = [
    ("nothing", "sound", lambda r: None),
    *file_kinds(SHAPE),
    *file_kinds(SHAPES),
    *file_kinds("synsetoffset2category.txt"),
    ("two rows", "sound", rows("0 1 0 0 0 1 37")),
    ("one part alone", "sound", rows("0 1 0 0 0 1 36.000000")),
    ("half a part", "quick", rows("0 1 0 0 0 1 36.5")),
    ("a part of another category", "quick", rows("0 1 0 0 0 1 12")),
    ("a negative part", "quick", rows("0 1 0 0 0 1 -1")),
    ("a huge part", "quick", rows("0 1 0 0 0 1 1e30")),
    ("NaN as part", "quick", rows("0 1 0 0 0 1 nan")),
    ("NaN", "quick", rows("0 nan 0 0 0 1 36")),
    ("infinity", "quick", rows("0 -inf 0 0 0 1 36")),
    ("1e30", "quick", rows("0 1e30 0 0 0 1 36")),
    ("1e39", "quick", rows("0 1e39 0 0 0 1 36")),
    ("NaN as normal, which is not used", "sound", rows("0 1 0 nan nan nan 37")),
    ("one point", "quick", rows()),
    ("points all equal", "quick", rows(FIRST.strip(), FIRST.strip())),
    ("six columns", "quick", rows(first="0 0 0 0 0 36\n")),
    ("six columns later", "quick", rows("0 0 0 0 0 36")),
    ("commas", "quick", rows(first="0,0,0,0,0,1,36\n")),
    ("words", "quick", rows("x y z 0 0 1 36")),
    ("blank lines", "sound", rows("", "0 1 0 0 0 1 36", "")),
    ("not UTF-8", "quick", lambda r: (r / SHAPE).write_bytes(FIRST.encode() + b"\xff\n")),
    ("a null byte", "quick", rows("0 1 0 0 0 1 36\0")),
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

TEXT: list[Mutation] = [
    ("nothing", "sound", lambda r: None),
    *file_kinds("val.txt"),
    ("not UTF-8", "full", text("val.txt", b"\xff" * 60)),
    ("a mark at the start", "sound", text("val.txt", "\ufeff" + "word " * 20)),
    ("null bytes", "sound", text("val.txt", bytes(60))),
    ("half a character", "full", text("val.txt", "ä".encode() * 30 + b"\xc3")),
]
