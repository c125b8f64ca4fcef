"""ImageNet in shards: the same samples, labels and classes as in folders; packing; problems."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tar_files import jpeg, sample, write_tar

from m2pt.commands import main
from m2pt.datasets import imagenet as layout
from m2pt.datasets import imagenet_shards, shards
from m2pt.datasets.augmentations import ImageAugmentation
from m2pt.datasets.corrupt import separate
from m2pt.datasets.manifest import build_manifest
from m2pt.errors import InputError

TRAINING = ImageAugmentation(scale=(0.5, 1.0), auto_augment="rand-m9-mstd0.5-inc1", reprob=0.5)


@pytest.fixture
def packed(imagenet: Path, tmp_path: Path) -> Path:
    command = [
        "data",
        "pack",
        "imagenet",
        str(imagenet),
        str(tmp_path / "packed"),
        "--samples-per-shard",
        "7",
    ]
    assert main(command) == 0
    return tmp_path / "packed"


def reader(root: Path, split: str = "train", *, num_classes: int = 10, **options: Any) -> layout.Reader:
    return layout.Reader(root, split, num_classes=num_classes, image_size=16, seed=5, **options)


def test_samples_are_those_of_the_folders_bit_for_bit(imagenet: Path, packed: Path) -> None:
    for split, augmentation in (("train", TRAINING), ("val", None)):
        folders, in_shards = (reader(root, split, augmentation=augmentation) for root in (imagenet, packed))
        assert len(folders) == len(in_shards) > 7
        for key in [(epoch, index) for epoch in (0, 3) for index in range(len(folders))]:
            (image, label), (other_image, other_label) = folders[key], in_shards[key]
            assert torch.equal(image, other_image) and label == other_label
            assert type(other_label) is int


def test_classes_counts_and_check_are_those_of_the_folders(imagenet: Path, packed: Path) -> None:
    assert layout.classes(packed) == layout.classes(imagenet)
    assert layout.counts(packed) == layout.counts(imagenet)
    for full in (False, True):
        assert layout.check(packed, num_classes=10, full=full) == []
    manifest = build_manifest(packed, "imagenet", full=True)
    names = [path.relative_to(packed).as_posix() for path in layout.files(packed)]
    assert sorted(names)[0] == "classes.txt" and len(names) == 1 + 9 + 3
    assert manifest["files"] == len(names) and manifest["items"] == layout.counts(imagenet)


def test_a_packing_that_was_stopped_continues_and_ends_with_the_same_bytes(
    imagenet: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    write, calls = imagenet_shards._write, []

    def stopping(path: Path, *arguments: Any) -> None:
        calls.append(path.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write(path, *arguments)

    monkeypatch.setattr(imagenet_shards, "_write", stopping)
    with pytest.raises(KeyboardInterrupt):
        layout.pack(imagenet, other, samples_per_shard=7)
    left = {path.name: path.stat().st_ino for path in other.rglob("*.tar")}
    assert len(left) >= 3 and not shards.index_path(other / "train").exists()
    half = other / "train/train-000008.tar"
    half.write_bytes(b"half")
    layout.pack(imagenet, other, samples_per_shard=7)
    assert all(next(other.rglob(name)).stat().st_ino == left[name] for name in left if name != half.name)
    for path in packed.rglob("*.*"):
        if path.suffix != ".npz":
            assert (other / path.relative_to(packed)).read_bytes() == path.read_bytes()
    written = len(calls)
    layout.pack(imagenet, other, samples_per_shard=7)
    assert len(calls) == written


def write_long(path: Path, color: str) -> None:
    """Write an image of one color and of 4,000 bytes."""
    Image.new("RGB", (30, 40), color).save(path, "JPEG")
    path.write_bytes(path.read_bytes().ljust(4000, b"\0"))


def test_a_changed_image_is_packed_again(imagenet: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "copy", tmp_path / "packed"
    shutil.copytree(imagenet, source)
    layout.pack(source, target, samples_per_shard=7)
    changed = sorted((source / "train").glob("*/*"))[20]
    write_long(changed, "red")
    layout.pack(source, target, samples_per_shard=7)
    assert torch.equal(reader(source)[20][0], reader(target)[20][0])
    times = changed.stat()
    write_long(changed, "blue")  # as long and as old as before
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert changed.stat().st_size == times.st_size
    layout.pack(source, target, samples_per_shard=7)
    assert torch.equal(reader(source)[20][0], reader(target)[20][0])
    with pytest.raises(InputError, match=r"has other shards, train-000003.tar.*choose another"):
        layout.pack(source, target, samples_per_shard=20)


def test_packing_refuses_what_it_cannot_do(imagenet: Path, packed: Path, tmp_path: Path, capsys: Any) -> None:
    def refused(*words: str) -> str:
        assert main(["data", "pack", *words]) == 2
        return str(capsys.readouterr().err)

    assert "is in shards already" in refused("imagenet", str(packed), str(tmp_path / "more"))
    assert "has folders, such as" in refused("imagenet", str(imagenet), str(imagenet))
    assert "layout coco is not read from tar files" in refused("coco", str(imagenet), str(tmp_path / "more"))
    assert "is not a folder" in refused("imagenet", str(tmp_path / "none"), str(tmp_path / "more"))
    more = ["imagenet", str(imagenet), str(tmp_path / "more")]
    assert "--samples-per-shard 0: must be" in refused(*more, "--samples-per-shard", "0")
    assert not (tmp_path / "more").exists()

    source = tmp_path / "copy"
    shutil.copytree(imagenet, source)
    image = sorted((source / "train").glob("*/*"))[0]
    shutil.copy(image, image.with_name("a.b.jpg"))
    shutil.copy(image, image.with_name("a_b.png"))
    with pytest.raises(InputError, match=r"a.b.jpg and .*a_b.png would both have the key .*/a_b: rename one"):
        layout.pack(source, tmp_path / "more", samples_per_shard=7)
    shutil.rmtree(source / "val")
    with pytest.raises(InputError, match="val is missing"):
        layout.pack(source, tmp_path / "more", samples_per_shard=7)


@pytest.mark.parametrize("inside", ["train", "train/shards", "train/3/shards", "val/shards", "link/shards"])
def test_packing_into_the_folder_of_a_split_is_refused(inside: str, imagenet: Path, tmp_path: Path) -> None:
    source = tmp_path / "copy"
    shutil.copytree(imagenet, source)
    (source / "link").symlink_to("train")
    before = sorted(source.rglob("*"))
    with pytest.raises(InputError, match=f"{source}/{inside} is in {source}/(train|val), where shards would"):
        layout.pack(source, source / inside, samples_per_shard=7)
    assert sorted(source.rglob("*")) == before
    layout.pack(source, source / "shards", samples_per_shard=7)
    assert layout.check(source, num_classes=10, full=True) == []


def test_corrupt_training_images_are_packed_as_they_are_up_to_the_bound(
    imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "copy", tmp_path / "packed"
    shutil.copytree(imagenet, source)
    first, second, *_ = sorted((source / "train").glob("*/*"))
    first.write_bytes(first.read_bytes()[:100])
    command = ["data", "pack", "imagenet", str(source), str(target), "--samples-per-shard", "7"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "warning: 1 corrupt training image packed as found" in said and str(first) in said
    assert layout.counts(target) == layout.counts(source)
    problems, (corrupt,) = separate(layout.check(target, num_classes=10, full=True))
    assert not problems and "train-000000.tar" in corrupt
    for root in (source, target):
        reader(root).load(1)
        with pytest.raises(InputError, match="cannot be read as an image"):
            reader(root).load(0)

    second.write_bytes(b"")
    assert main(command) == 2
    assert (
        "2 of the 60 training samples that were read are corrupt, more than the 1 %"
        in capsys.readouterr().err
    )
    second.write_bytes(next((source / "train").glob("*/*3*")).read_bytes())
    next((source / "val").glob("*/*")).write_bytes(b"")
    assert main(command) == 2
    assert "cannot be read as an image" in capsys.readouterr().err


def test_shards_of_others_need_no_names_of_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        members = [sample(f"{number:03}", number % 3, jpeg(number)) for number in (5, 1, 3)]
        write_tar(tmp_path / split / "some-0.tar", *[member for pair in members for member in pair])
    assert layout.check(tmp_path, num_classes=3, full=True) == []
    assert layout.classes(tmp_path) == ["0", "1", "2"]
    assert [reader(tmp_path, num_classes=3)[index][1] for index in range(3)] == [2, 1, 0]
    assert layout.check(tmp_path, num_classes=4, full=False) == [
        f"{tmp_path}/{split} has no image of class 3." for split in ("train", "val")
    ]
    beyond = f"{tmp_path}/train/some-0.tar/005.jpg has the label 2, but num_classes = 2 allows 0 to 1"
    assert beyond in layout.check(tmp_path, num_classes=2, full=False)[0]
    with pytest.raises(InputError, match="has the label 2, but num_classes = 2"):
        reader(tmp_path, num_classes=2)


def test_every_problem_is_named(packed: Path) -> None:
    (packed / "classes.txt").write_text("one\n")
    path = packed / "train/train-000002.tar"
    content = path.read_bytes()
    path.write_bytes(content[:2000])
    shutil.rmtree(packed / "val")
    found = layout.check(packed, num_classes=10, full=False)
    assert found[0] == f"{packed}/classes.txt has 1 lines, not num_classes = 10."
    assert all(str(path) in problem for problem in found[1:-1]) and len(found) in (3, 4)
    assert found[-1] == f"{packed}/val has no shards (*.tar)."
    with pytest.raises(InputError, match=r"train-000002.tar"):
        reader(packed)


def test_a_broken_image_in_a_shard_is_named_and_may_be_skipped(tmp_path: Path) -> None:
    for split in ("train", "val"):
        members = [sample(f"{number:03}", number % 2, jpeg(number)) for number in range(4)]
        if split == "train":
            members[1] = sample("001", 1, jpeg(1)[:300])
        write_tar(tmp_path / split / "0.tar", *[member for pair in members for member in pair])
    name = f"{tmp_path}/train/0.tar/001.jpg"
    for full in (False, True):
        refused, skipped = separate(layout.check(tmp_path, num_classes=2, full=full))
        assert (
            refused == []
            and len(skipped) == 1
            and skipped[0].startswith(f"{name} cannot be read as an image")
        )
    images = reader(tmp_path, num_classes=2)
    with pytest.raises(InputError, match=f"{name} cannot be read as an image"):
        images[1]
    images.skip_corrupt = True
    assert images[1][1] == 0


def test_a_shard_that_was_replaced_is_never_skipped(packed: Path) -> None:
    path = packed / "train/train-000002.tar"
    path.write_bytes(bytes(path.stat().st_size))
    images = reader(packed)
    images.skip_corrupt = True
    with pytest.raises(InputError, match=r"train-000002.tar is not the file"):
        images[15]
    refused, skipped = separate(layout.check(packed, num_classes=10, full=False))
    assert len(refused) == 1 and "train-000002.tar is not the file" in refused[0] and not skipped


def test_the_official_archives_of_the_classes_are_no_shards(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_tar(tmp_path / split / "n01440764.tar", *sample("n01440764_10026", 0, jpeg(0)))
    problems = layout.check(tmp_path, num_classes=1, full=False)
    assert len(problems) == 2
    assert all("not shards" in each and "m2pt data prepare imagenet" in each for each in problems)


def test_class_folders_beside_archives_are_read_as_folders(imagenet: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(imagenet, root)
    (root / "train/n01.tar").write_bytes(b"of the download")
    assert not layout.has_shards(root)
    assert layout.check(root, num_classes=10, full=False) == []
