"""ImageNet from archives in the official forms: each image where it belongs, after any stop or damage."""

import io
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from official_imagenet import DEVKIT, TRAIN, VAL, WNIDS, Official, contents, devkit, tar, write_archives

from m2pt.commands import main
from m2pt.datasets import imagenet
from m2pt.datasets.preparation.imagenet import prepare
from m2pt.errors import InputError

CLASS = WNIDS[1]
BLOCK = 512


@pytest.fixture
def official(tmp_path: Path) -> Official:
    return write_archives(tmp_path / "archives")


def is_complete(root: Path, official: Official) -> bool:
    return contents(root / "train") == official.train and contents(root / "val") == official.val


def test_each_image_is_in_the_folder_of_its_class(official: Official, tmp_path: Path) -> None:
    root = tmp_path / "deep" / "imagenet"
    assert prepare(official.folder, root) == [
        "train: 9 of 9 images in 3 of 3 classes",
        "val: 5 of 5 images in 3 of 3 classes",
    ]
    assert is_complete(root, official)
    assert imagenet.check(root, num_classes=3, full=True) == []
    reader = imagenet.Reader(root, "val", num_classes=3, image_size=8)
    label_of = {wnid: label for label, wnid in enumerate(sorted(WNIDS.values()))}
    assert sorted(reader[index][1] for index in range(len(reader))) == sorted(
        label_of[path.split("/")[0]] for path in official.val
    )


def test_the_command_checks_what_it_has_made(
    official: Official, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "prepare", "imagenet", str(official.folder), str(official.folder)]
    assert main([*command, "--num-classes", "3"]) == 0
    out = capsys.readouterr().out
    assert "train: 9 of 9 images" in out and "no problems found in this imagenet dataset of 3 classes" in out
    assert out.splitlines()[-1] == f"wrote {official.folder}"
    assert main(command) == 2, "1000 classes are the official number"
    assert "has 3 class folders, not num_classes = 1000" in capsys.readouterr().err


def test_what_is_there_is_not_written_again(official: Official, tmp_path: Path) -> None:
    prepare(official.folder, tmp_path)
    first, *others = (tmp_path / "train" / name for name in official.train)
    first.unlink()
    before = {path: path.stat().st_ino for path in others}
    prepare(official.folder, tmp_path)
    assert is_complete(tmp_path, official)
    assert {path: path.stat().st_ino for path in others} == before


KILLED = """
import os, signal, sys
from pathlib import Path
from m2pt.datasets.preparation import unpacking
from m2pt.datasets.preparation.imagenet import prepare
chunks, left = unpacking.Unpacking._chunks, int(sys.argv[3])
def killing(self, opened):
    global left
    for chunk in chunks(self, opened):
        yield chunk[:100]
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        yield chunk[100:]
unpacking.Unpacking._chunks = killing
prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("images", [0, 4, 11])
def test_an_unpacking_that_was_killed_goes_on(images: int, official: Official, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(official.folder), str(tmp_path), str(images)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    parts = list(tmp_path.glob("*/*/.*.part"))
    assert parts, "it was killed while it wrote a file"
    whole = official.train | official.val
    for split in ("train", "val"):
        for name, content in contents(tmp_path / split).items():
            assert name.endswith(".part") or content == whole[name]
    prepare(official.folder, tmp_path)
    assert is_complete(tmp_path, official)


def end_of_files(archive: bytes) -> int:
    """Return where the mark of the end begins."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        last = tar.getmembers()[-1]
        return last.offset_data + -(-last.size // BLOCK) * BLOCK


@pytest.mark.parametrize("name", [TRAIN, VAL])
def test_a_truncated_archive_is_named_wherever_it_ends(name: str, official: Official, tmp_path: Path) -> None:
    path = official.folder / name
    whole = path.read_bytes()
    for size in range(0, end_of_files(whole) + 1, BLOCK):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"{name}.* Download it again\."):
            prepare(official.folder, tmp_path)
        assert not list(tmp_path.rglob("*.part"))
    path.write_bytes(whole)
    prepare(official.folder, tmp_path)
    assert is_complete(tmp_path, official)


def test_a_damaged_header_is_not_taken_for_the_end(official: Official, tmp_path: Path) -> None:
    for name in (TRAIN, VAL):
        path = official.folder / name
        whole = path.read_bytes()
        with tarfile.open(path) as archive:
            offsets = [member.offset for member in archive]
        for offset in offsets:
            path.write_bytes(whole[:offset] + b"x" + whole[offset + 1 :])
            with pytest.raises(
                InputError, match=rf"{name} cannot be read as an archive: .*Download it again\."
            ):
                prepare(official.folder, tmp_path)
        path.write_bytes(whole)


def test_a_damaged_archive_of_a_class_is_named(official: Official, tmp_path: Path) -> None:
    (official.folder / TRAIN).write_bytes(tar({f"{CLASS}.tar": b"<html>not found</html>"}))
    with pytest.raises(InputError, match=rf"{TRAIN}/{CLASS}\.tar cannot be read as an archive"):
        prepare(official.folder, tmp_path)


@pytest.mark.parametrize("name", [TRAIN, VAL, DEVKIT])
def test_a_missing_archive_is_named(name: str, official: Official, tmp_path: Path) -> None:
    (official.folder / name).unlink()
    with pytest.raises(
        InputError, match=f"{official.folder / name} is missing: download it, or give the folder"
    ):
        prepare(official.folder, tmp_path / "root")
    assert not (tmp_path / "root").exists(), "nothing is unpacked before"


def test_a_split_that_is_there_needs_no_archive(official: Official, tmp_path: Path) -> None:
    (tmp_path / "train" / CLASS).mkdir(parents=True)
    (official.folder / TRAIN).unlink()
    (line,) = prepare(official.folder, tmp_path)
    assert line.startswith("val: 5 of 5 images")
    assert contents(tmp_path / "val") == official.val


def test_other_files_are_never_replaced(official: Official, tmp_path: Path) -> None:
    mine = tmp_path / "val" / next(iter(official.val))
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(
        InputError, match=rf"{mine} exists and is not the file of [\d,]+ bytes that is in .*{VAL}"
    ):
        prepare(official.folder, tmp_path)
    assert mine.read_bytes() == b"mine"
    mine.write_bytes(b"")  # as a crash of the machine may leave it
    prepare(official.folder, tmp_path)
    assert is_complete(tmp_path, official)
    mine.unlink()
    mine.mkdir()
    with pytest.raises(InputError, match=f"{mine} exists and is not the file"):
        prepare(official.folder, tmp_path)


def test_what_a_subset_lacks_is_counted(official: Official, tmp_path: Path) -> None:
    files = {Path(path).name: content for path, content in official.train.items() if path.startswith(CLASS)}
    last = list(files)[-1]
    (official.folder / TRAIN).write_bytes(tar({f"{CLASS}.tar": tar({last: files[last]})}))
    train, val = prepare(official.folder, tmp_path)
    assert train == (
        "train: 1 of 9 images in 1 of 3 classes; incomplete: n01440764 (0 of 3), n02100735 (0 of 3), "
        "n02119789 (1 of 3)"
    )
    assert val == "val: 5 of 5 images in 3 of 3 classes"


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        (TRAIN, {"n09999999.tar": tar({})}, "'n09999999.tar', which is not the archive of a class"),
        (TRAIN, {"n00001740.tar": tar({})}, "'n00001740.tar', which is not the archive of a class"),
        (
            TRAIN,
            {f"{CLASS}.tar": tar({"../a.JPEG": b""})},
            r"'\.\./a\.JPEG', which is not an image of the class",
        ),
        (VAL, {"ILSVRC2012_val_00000006.JPEG": b"6"}, "which is none of the 5 validation images"),
        (VAL, {"ILSVRC2012_val_00000000.JPEG": b"0"}, "which is none of the 5 validation images"),
        (VAL, {"ILSVRC2012_test_00000001.JPEG": b"1"}, "which is none of the 5 validation images"),
    ],
)
def test_another_archive_is_named(
    name: str, files: dict[str, bytes], message: str, official: Official, tmp_path: Path
) -> None:
    (official.folder / name).write_bytes(tar(files))
    with pytest.raises(InputError, match=message):
        prepare(official.folder, tmp_path / "root")


def test_a_link_is_refused(official: Official, tmp_path: Path) -> None:
    with tarfile.open(official.folder / VAL, "w") as archive:
        link = tarfile.TarInfo("ILSVRC2012_val_00000001.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InputError, match=r"00000001\.JPEG', which is neither a file nor a folder"):
        prepare(official.folder, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>log in</html>", "cannot be read as an archive"),
        (tar({"data/meta.mat": b"nothing"}, "w:gz"), "has no ILSVRC2012_validation_ground_truth.txt"),
        (devkit([1, 1001], 3), "has the class 1001, which meta.mat does not have"),
        (
            tar({"meta.mat": b"nothing", "ILSVRC2012_validation_ground_truth.txt": b"1\n"}, "w:gz"),
            "cannot be read as an archive",
        ),
        (devkit([1], 3)[:-200], "cannot be read as an archive"),
    ],
)
def test_a_damaged_development_kit_is_named(
    content: bytes, message: str, official: Official, tmp_path: Path
) -> None:
    (official.folder / DEVKIT).write_bytes(content)
    with pytest.raises(InputError, match=rf"{DEVKIT} .*{message}"):
        prepare(official.folder, tmp_path / "root")


def test_nothing_heavy_is_imported_before_the_archives_are_found(tmp_path: Path) -> None:
    code = "import sys; from m2pt.commands import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, "data", "prepare", "imagenet", str(tmp_path), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{DEVKIT} is missing" in run.stderr
    assert not {"torch", "torchvision", "scipy"} & set(run.stdout.split())
