"""Shards: what is in a tar file, the index of many, and every way in which one can be wrong."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tar_files import sample, write_tar

from m2pt.datasets import shards
from m2pt.errors import InputError


def test_the_samples_of_a_shard_are_those_of_a_tar_file_as_tarfile_reads_it(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        *sample("n01/x", 3, b"first"),
        ("n01/._y.jpg", b"hidden"),
        ("n02/y.json", b"{}"),
        ("n02/y.mask.png", b""),
        ("n02/y.cls", b" 12\n"),
        ("n02/y.JPEG", b""),
        *sample("n02/" + "z" * 200, 0, bytes(3000)),
    )
    found, problems = shards.scan(path)
    assert problems == []
    assert [(each.key, each.label) for each in found] == [
        ("n01/x", 3),
        ("n02/y", 12),
        ("n02/" + "z" * 200, 0),
    ]
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        images = [
            tar.extractfile(name).read() for name in ("n01/x.jpg", "n02/y.JPEG", f"n02/{'z' * 200}.jpg")
        ]  # type: ignore[union-attr]
    assert [content[each.offset : each.offset + each.size] for each in found] == images


def test_an_index_reads_any_image_and_is_kept_until_a_shard_changes(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    for number in range(3):
        members = [sample(f"{number}{k}", 10 * number + k, b"%d" % (10 * number + k)) for k in range(4)]
        write_tar(folder / f"{number}.tar", *[member for pair in members for member in pair])
    index = shards.load_index(folder)
    assert index.labels.tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert [index.image(k) for k in (11, 0, 5)] == [
        (folder / "2.tar/23.jpg", b"23"),
        (folder / "0.tar/00.jpg", b"0"),
        (folder / "1.tar/11.jpg", b"11"),
    ]
    stored = shards.index_path(folder)
    assert stored == tmp_path / "train.index.npz"
    before = stored.stat()
    assert np.array_equal(shards.load_index(folder).rows, index.rows)
    assert (stored.stat().st_ino, stored.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    write_tar(folder / "3.tar", *sample("a", 7))
    assert len(shards.load_index(folder)) == 13
    stored.write_bytes(stored.read_bytes()[:100])
    assert len(shards.load_index(folder)) == 13
    assert shards.stored_index(folder) is not None


def test_an_index_takes_24_bytes_for_each_sample(tmp_path: Path) -> None:
    sizes = []
    for number in (20, 200):
        folder = tmp_path / str(number)
        members = [sample(f"{k}" * 30, k, b"") for k in range(number)]
        write_tar(folder / "a.tar", *[member for pair in members for member in pair])
        index = shards.load_index(folder)
        sizes.append(index.rows.nbytes)
        assert set(vars(index)) == {"folder", "names", "rows"} and index.names == ["a.tar"]
    assert sizes == [24 * 20, 24 * 200]


def test_a_shard_replaced_by_another_of_its_size_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    write_tar(folder / "a.tar", *sample("x", 0, b"1"), *sample("y", 0, b"22"))
    index = shards.load_index(folder)
    write_tar(folder / "a.tar", *sample("x", 0, b"333"), *sample("y", 0, b"4"))
    with pytest.raises(InputError, match=r"a.tar is not the file that .*train.index.npz was made for"):
        index.image(0)
    (folder / "a.tar").unlink()
    with pytest.raises(InputError, match=r"a.tar cannot be read: No such file"):
        index.image(0)


LINK = tarfile.TarInfo("x.jpg")
LINK.type, LINK.linkname = tarfile.SYMTYPE, "/etc/passwd"
PROBLEMS = {
    "no label": ([("x.jpg", b"1")], "sample x has no label (.cls)."),
    "no image": ([("x.cls", b"1")], "sample x has no image file."),
    "two images": ([*sample("x", 0), ("x.png", b"")], "sample x has 2 image files."),
    "parted": ([("x.jpg", b"1"), *sample("y", 0), ("x.cls", b"1")], "sample x has no label (.cls)."),
    "a name as label": (
        [*sample("x", "n01440764")],
        "sample x has the label 'n01440764', which must be 0, 1",
    ),
    "a negative label": ([*sample("x", -1)], "sample x has the label '-1', which must be 0, 1"),
    "an enormous label": ([*sample("x", "9" * 200)], "sample x has the label '9999"),
    "nothing": ([], "has no samples."),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_wrong_sample_is_named_with_its_shard(kind: str, tmp_path: Path) -> None:
    members, words = PROBLEMS[kind]
    path = write_tar(tmp_path / "a.tar", *members)
    _, problems = shards.scan(path)
    assert words in problems[0]
    assert all(problem.startswith(str(path)) and problem.endswith(".") for problem in problems)
    with pytest.raises(InputError, match=r"a\.tar"):
        shards.load_index(tmp_path)
    assert not shards.index_path(tmp_path).exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(LINK)
        entry = tarfile.TarInfo("x.cls")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"0"))
    _, problems = shards.scan(tmp_path / "a.tar")
    assert "member x.jpg is a link" in problems[0]


def test_many_problems_of_a_shard_are_cut(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", *[(f"{number}.jpg", b"") for number in range(100)])
    _, problems = shards.scan(path)
    assert len(problems) == 21 and "perhaps more problems" in problems[-1]


def test_a_shard_cut_anywhere_or_damaged_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", *sample("x", 0, bytes(700)), *sample("y", 1, bytes(700)))
    content = path.read_bytes()
    end = content.rindex(b"y.cls") + 1024
    for length in (0, 1, 511, 512, 600, 1024, 2048, 2560, 3000, end - 512, end - 1, end, end + 100):
        path.write_bytes(content[:length])
        _, problems = shards.scan(path)
        assert problems and str(path) in problems[-1], length
    assert b"y.jpg" in content
    path.write_bytes(content.replace(b"y.jpg", b"z.jpg", 1))  # a wrong checksum, where tarfile stops
    _, problems = shards.scan(path)
    assert "is truncated or damaged at byte" in problems[-1]
    path.unlink()
    path.mkdir()
    _, problems = shards.scan(path)
    assert "is a folder, not a file" in problems[0]


def test_an_index_that_cannot_be_stored_says_what_to_do(tmp_path: Path) -> None:
    write_tar(tmp_path / "train/a.tar", *sample("x", 0))
    shards.index_path(tmp_path / "train").mkdir()
    with pytest.raises(InputError, match=r"train.index.npz cannot be written \(.*link the shards"):
        shards.load_index(tmp_path / "train")
