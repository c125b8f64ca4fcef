"""ImageNet and ADE20K: what the check accepts is read whole and scores 100; the rest is refused by name."""

import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_layouts import verdict
from PIL import Image

from m2pt.datasets import ade20k, imagenet
from m2pt.datasets.layouts import check, layout_module
from m2pt.datasets.manifest import build_manifest
from m2pt.errors import InputError

CLASSES = {"imagenet": 2, "coco": 10, "ade20k": 2}
SIZE = (20, 16)
Change = Callable[[Path], object]


def noise(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8))


def labels(mode: str = "L") -> Image.Image:
    stored = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE[::-1]) % 3
    image = Image.fromarray(stored)
    if mode == "P":
        image = Image.fromarray(stored, "P")
        image.putpalette([9, 200, 7] * 256)
    return image


@pytest.fixture
def small(tmp_path: Path) -> Callable[[str], Path]:
    """Write two images a split, in two classes."""

    def write(layout: str) -> Path:
        root = tmp_path / layout
        splits = {"imagenet": ("train", "val"), "ade20k": ("training", "validation")}[layout]
        for split in splits:
            for place, name in enumerate("ab"):
                if layout == "imagenet":
                    path = root / split / f"n0{place}" / f"{name}.JPEG"
                else:
                    path = root / "images" / split / f"{name}.jpg"
                    annotation = root / "annotations" / split / f"{name}.png"
                    annotation.parent.mkdir(parents=True, exist_ok=True)
                    labels().save(annotation)
                path.parent.mkdir(parents=True, exist_ok=True)
                noise(place).save(path)
        if layout == "ade20k":
            (root / "objectInfo150.txt").write_text("Idx\tRatio\tName\n1\t0.5\twall\n2\t0.5\tsky, air\n")
        return root

    return write


@pytest.mark.parametrize("layout", CLASSES)
def test_the_miniature_is_read_whole_and_scores_100(layout: str, request: pytest.FixtureRequest) -> None:
    classes = {"imagenet": 10, "coco": 10, "ade20k": 11}[layout]
    assert verdict(layout, request.getfixturevalue(layout), classes) == []


def assert_refused(layout: str, root: Path, change: Change, message: str) -> None:
    """Both forms of the check find the same problems, the message among them."""
    change(root)
    problems = "\n".join(verdict(layout, root, 2))
    assert re.search(message, problems), problems
    assert set(check(layout, root, num_classes=2, full=False)) == set(problems.splitlines())


# ---- ImageNet ----------------------------------------------------------------------------------------------


def in_class(name: str, kind: str | None = None) -> Change:
    """Save another image in a class, in the format of its name or another."""
    return lambda root: noise(3).save(root / "train" / "n00" / name, **({"format": kind} if kind else {}))


def linked_class(root: Path) -> None:
    (root / "train" / "n00").rename(root / "elsewhere")
    (root / "train" / "n00").symlink_to(root / "elsewhere")


def one_deeper(root: Path) -> None:
    (root / "val/n01/images").mkdir()
    (root / "val/n01/b.JPEG").rename(root / "val/n01/images/b.JPEG")


def renamed(old: str, new: str) -> Change:
    return lambda root: (root / old).rename(root / new)


IMAGENET_SOUND: dict[str, tuple[Change, int]] = {
    "as it is": (lambda root: None, 2),
    "a PNG named JPEG": (in_class("c.JPEG", "PNG"), 3),
    "WebP": (in_class("c.webp"), 3),
    "BMP": (in_class("c.bmp"), 3),
    "TIFF": (in_class("c.TIF", "TIFF"), 3),
    "PPM": (in_class("c.ppm"), 3),
    "CMYK": (lambda root: noise().convert("CMYK").save(root / "train/n00/c.JPEG"), 3),
    "16-bit gray": (lambda root: Image.new("I;16", SIZE, 40_000).save(root / "train/n00/c.png"), 3),
    "one pixel": (lambda root: Image.new("RGB", (1, 1)).save(root / "train/n00/c.png"), 3),
    "a narrow one": (lambda root: Image.new("L", (1, 100)).save(root / "train/n00/c.png"), 3),
    "a link to an image": (lambda root: (root / "train/n00/c.JPEG").symlink_to(root / "train/n01/b.JPEG"), 3),
    "a link to a class": (linked_class, 2),
    "macOS": (lambda root: [(root / "train/n00" / name).touch() for name in ("._a.JPEG", ".DS_Store")], 2),
    "a hidden folder": (lambda root: (root / "train/.ipynb_checkpoints").mkdir(), 2),
    "text": (lambda root: [(root / name).touch() for name in ("train/n00/README", "train/a.txt")], 2),
}


@pytest.mark.parametrize("name", IMAGENET_SOUND)
def test_imagenet_is_read_as_people_have_it(name: str, small: Callable[[str], Path]) -> None:
    root = small("imagenet")
    change, count = IMAGENET_SOUND[name]
    change(root)
    assert verdict("imagenet", root, 2) == []
    assert imagenet.counts(root) == {"train": count, "val": 2}
    assert build_manifest(root, "imagenet", full=True)["files"] == count + 2


IMAGENET_REFUSED: dict[str, tuple[Change, str]] = {
    "a broken link": (
        lambda root: (root / "train/n00/c.JPEG").symlink_to("nowhere"),
        "c.JPEG is a broken link",
    ),
    "a pipe": (lambda root: os.mkfifo(root / "train/n00/c.JPEG"), "c.JPEG is a broken link or not a file"),
    "a folder of that name": (
        lambda root: (root / "train/n00/c.jpg").mkdir(),
        "c.jpg is a folder among images",
    ),
    "an image without ending": (renamed("train/n00/a.JPEG", "train/n00/a"), "not an image, such as a:"),
    "images one deeper": (one_deeper, "val/n01/images is a folder among images"),
    "a GIF": (in_class("c.gif"), "1 file that is not an image, such as c.gif: images end in .jpg"),
    "half a file": (
        lambda root: (root / "val/n01/b.JPEG").write_bytes(b"\xff\xd8\xff\xe0"),
        "b.JPEG cannot be read",
    ),
    "no content": (
        lambda root: (root / "val/n01/b.JPEG").write_bytes(b""),
        "b.JPEG cannot be read as an image",
    ),
    "no UTF-8": (
        lambda root: in_class(os.fsdecode(b"\xe9.jpg"))(root),
        r"n00/\\xe9.jpg has a name that is not UTF-8",
    ),
    "a class of no UTF-8": (
        lambda root: (root / "train/n00").rename(root / "train" / os.fsdecode(b"\xe9")),
        r"train/\\xe9 has a name",
    ),
    "__MACOSX": (lambda root: (root / "train/__MACOSX").mkdir(), "__MACOSX is an empty class"),
    "a class less": (
        lambda root: shutil.rmtree(root / "val/n01"),
        "val/n01 is missing, but it is a class of train",
    ),
    "an empty class": (lambda root: (root / "val/n01/b.JPEG").unlink(), "val/n01 is an empty class"),
    "a linked class that is gone": (
        lambda root: (root / "train/n02").symlink_to("gone"),
        "n02 is a broken link",
    ),
    "an image in no class": (
        lambda root: noise().save(root / "val/c.webp"),
        "outside class folders, such as c.webp",
    ),
    "an image in no class, unread": (lambda root: (root / "val/c.gif").touch(), "such as c.gif"),
    "a split that is a file": (
        lambda root: (shutil.rmtree(root / "val"), (root / "val").touch()),
        "val is missing",
    ),
}


@pytest.mark.parametrize("name", IMAGENET_REFUSED)
def test_imagenet_is_refused_by_name(name: str, small: Callable[[str], Path]) -> None:
    assert_refused("imagenet", small("imagenet"), *IMAGENET_REFUSED[name])


# ---- ADE20K ------------------------------------------------------------------------------------------------


def annotation(image: Image.Image, **options: object) -> Change:
    return lambda root: image.save(root / "annotations/validation/a.png", **options)


def several(*changes: Change) -> Change:
    return lambda root: [change(root) for change in changes]


ADE20K_SOUND: dict[str, Change] = {
    "as it is": lambda root: None,
    "a palette": annotation(labels("P")),
    "a palette of 2 bits": annotation(labels("P"), bits=2),
    "annotations named .PNG": renamed("annotations/validation/a.png", "annotations/validation/a.PNG"),
    "images of other kinds": lambda root: (
        noise().save(root / "images/validation/a.webp"),
        (root / "images/validation/a.jpg").unlink(),
    ),
    "dots in names": several(
        renamed("annotations/validation/a.png", "annotations/validation/a.x.png"),
        renamed("images/validation/a.jpg", "images/validation/a.x.jpg"),
    ),
    "macOS": lambda root: [
        (root / kind / "training" / name).touch()
        for kind in ("images", "annotations")
        for name in ("._a.jpg", "._a.png", ".DS_Store")
    ],
    "names that sort otherwise without their ending": several(
        renamed("annotations/validation/b.png", "annotations/validation/a-b.png"),
        renamed("images/validation/b.jpg", "images/validation/a-b.jpg"),
    ),
    "an image without a label": annotation(Image.new("L", SIZE, 0)),
    "Windows line ends": lambda root: (root / "objectInfo150.txt").write_bytes(
        b"\xef\xbb\xbfIdx\tName\r\n1\twall\r\n2\tsky\r\n\r\n"
    ),
}


@pytest.mark.parametrize("name", ADE20K_SOUND)
def test_ade20k_is_read_as_people_have_it(name: str, small: Callable[[str], Path]) -> None:
    root = small("ade20k")
    ADE20K_SOUND[name](root)
    assert verdict("ade20k", root, 2) == []
    assert build_manifest(root, "ade20k", full=True)["files"] == 9


def oversized_text(root: Path) -> None:
    path = root / "annotations/validation/a.png"
    data = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(2_000_000))
    extra = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    content = path.read_bytes()
    path.write_bytes(content[:33] + extra + content[33:])


def twice(folder: str, name: str) -> Change:
    return lambda root: (noise() if folder[0] == "i" else labels()).save(root / folder / "validation" / name)


ADE20K_REFUSED: dict[str, tuple[Change, str]] = {
    "an annotation less": (
        lambda root: (root / "annotations/validation/a.png").unlink(),
        "a.jpg has no annotation",
    ),
    "an image less": (lambda root: (root / "images/validation/a.jpg").unlink(), "a.png has no image"),
    "annotations named .jpg": (
        renamed("annotations/validation/a.png", "annotations/validation/a.jpg"),
        "a.jpg must be a PNG file",
    ),
    "annotations in JPEG": (annotation(labels(), format="JPEG"), "a.png cannot be read as a PNG image"),
    "annotations in WebP": (twice("annotations", "c.webp"), "c.webp must be a PNG file"),
    "an image twice": (
        twice("images", "a.png"),
        "a.png differs from a.jpg only in its suffix; remove one",
    ),
    "an annotation twice": (twice("annotations", "a.PNG"), "a.png differs from a.PNG only in its suffix"),
    "colors": (annotation(labels().convert("RGB")), "stores pixels as RGB, not with 8 bits"),
    "colors and alpha": (annotation(labels().convert("RGBA")), "stores pixels as RGBA"),
    "gray and alpha": (annotation(labels().convert("LA")), "stores pixels as LA"),
    "1 bit": (annotation(labels().convert("1")), "stores pixels as 1, not with 8 bits"),
    "2 bits": (annotation(labels(), bits=2), "stores pixels as L;2, not with 8 bits"),
    "4 bits": (annotation(labels(), bits=4), "stores pixels as L;4, not with 8 bits"),
    "16 bits": (annotation(Image.new("I;16", SIZE, 1)), "stores pixels as I;16B, not with 8 bits"),
    "label 255": (annotation(Image.new("L", SIZE, 255)), "label 255, but there are 2 classes"),
    "label 3": (annotation(Image.new("L", SIZE, 3)), "label 3, but there are 2 classes"),
    "another size": (annotation(labels().resize((16, 20))), "a.png is 16x20, but its image is 20x16"),
    "text of 2 MB": (oversized_text, "a.png cannot be read as a PNG image: Decompressed data too large"),
    "no content": (
        lambda root: (root / "annotations/validation/a.png").write_bytes(b""),
        "a.png cannot be read",
    ),
    "an image of no content": (
        lambda root: (root / "images/validation/a.jpg").write_bytes(b""),
        "a.jpg cannot be read",
    ),
    "nothing labeled": (
        several(
            annotation(Image.new("L", SIZE)),
            lambda root: shutil.copy(
                root / "annotations/validation/a.png", root / "annotations/validation/b.png"
            ),
        ),
        "class 1 is empty",
    ),
    "a broken link": (
        lambda root: (root / "images/training/c.jpg").symlink_to("nowhere"),
        "c.jpg is a broken link",
    ),
    "a pipe": (
        lambda root: os.mkfifo(root / "annotations/training/c.png"),
        "c.png is a broken link or not a file",
    ),
    "a folder": (lambda root: (root / "images/training/c.jpg").mkdir(), "c.jpg is a folder among images"),
    "a GIF": (twice("images", "c.gif"), "such as c.gif"),
    "no UTF-8": (
        several(twice("images", os.fsdecode(b"\xe9.jpg")), twice("annotations", os.fsdecode(b"\xe9.png"))),
        r"\\xe9.jpg has a name that is not UTF-8",
    ),
    "no list of classes": (lambda root: (root / "objectInfo150.txt").unlink(), "objectInfo150.txt"),
    "a list that is a pipe": (
        several(
            lambda root: (root / "objectInfo150.txt").unlink(),
            lambda root: os.mkfifo(root / "objectInfo150.txt"),
        ),
        "objectInfo150.txt: is a pipe",
    ),
    "a list of no UTF-8": (
        lambda root: (root / "objectInfo150.txt").write_bytes(b"Idx\tName\n1\t\xe9\n2\tb\n"),
        "is not UTF-8",
    ),
    "a list out of order": (
        lambda root: (root / "objectInfo150.txt").write_text("Idx\tName\n2\tsky\n1\twall\n"),
        "line 2: must be class 1",
    ),
    "a list without header": (
        lambda root: (root / "objectInfo150.txt").write_text("1\twall\n2\tsky\n"),
        "line 2: must be class 1",
    ),
    "a list without a name": (
        lambda root: (root / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n2\t\n"),
        "line 3: must be class 2",
    ),
    "a list with spaces for tabs": (
        lambda root: (root / "objectInfo150.txt").write_text("Idx Name\n1 wall\n2 sky\n"),
        "line 2: must be class 1",
    ),
    "a list of three": (
        lambda root: (root / "objectInfo150.txt").write_text("Idx\tName\n1\ta\n2\tb\n3\tc\n"),
        "names 3 classes, not num_classes = 2",
    ),
}


@pytest.mark.parametrize("name", ADE20K_REFUSED)
def test_ade20k_is_refused_by_name(name: str, small: Callable[[str], Path]) -> None:
    assert_refused("ade20k", small("ade20k"), *ADE20K_REFUSED[name])


def test_ade20k_reader_refuses_what_has_no_pair(small: Callable[[str], Path]) -> None:
    root = small("ade20k")
    (root / "annotations/validation/a.png").unlink()
    with pytest.raises(InputError, match=r"a\.jpg has no annotation"):
        ade20k.Reader(root, "val", num_classes=2, image_size=16)


def test_the_quick_check_reads_every_header(
    small: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2pt.datasets.checks.QUICK_SAMPLE", 1)
    root = small("ade20k")
    noise().resize((9, 9)).save(root / "images/validation/b.jpg")
    labels().convert("RGB").save(root / "annotations/training/b.png")
    problems = check("ade20k", root, num_classes=2, full=False)
    assert [problem.split(" ")[0] for problem in problems] == [
        f"{root}/annotations/training/b.png",
        f"{root}/annotations/validation/b.png",
    ]


@pytest.mark.parametrize("layout", ["imagenet", "ade20k"])
def test_a_bomb_is_refused_by_check_and_reader(layout: str, small: Callable[[str], Path]) -> None:
    root = small(layout)
    path = next(path for path in sorted(root.rglob("a.*")) if path.suffix != ".png" and "train" in str(path))
    Image.new("1", (20_000, 10_000)).save(path, "PNG")
    for full in (False, True):
        (problem,) = check(layout, root, num_classes=2, full=full)
        assert problem == f"{path} is 20000x10000 pixels, more than 178956970; resize or remove it."
    reader = layout_module(layout).Reader(root, "train", num_classes=2, image_size=16)
    with pytest.raises(InputError, match="20000x10000"):
        reader[0]
