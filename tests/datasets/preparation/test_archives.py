"""Official zip archives, unpacked to a root that the layout's check accepts; damaged and unsafe ones."""

import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from official_imagenet import contents

from m2pt import catalog
from m2pt.commands import main
from m2pt.datasets.layouts import check
from m2pt.datasets.miniature.staging import RECORD
from m2pt.datasets.preparation.archives import unpack_archives
from m2pt.errors import InputError

BENCHMARK = "shapenetcore_partanno_segmentation_benchmark_v0_normal"
FORMS: dict[str, dict[str, dict[str, str]]] = {
    "ade20k": {"ADEChallengeData2016.zip": {"": "ADEChallengeData2016/"}},
    "coco": {
        "train2017.zip": {"train2017/": "train2017/"},
        "val2017.zip": {"val2017/": "val2017/"},
        "annotations_trainval2017.zip": {"annotations/": "annotations/"},
    },
    "partnet": {"sem_seg_h5.zip": {"sem_seg_h5/": "sem_seg_h5/"}},
    "shapenetpart": {f"{BENCHMARK}.zip": {"": f"{BENCHMARK}/"}},
}
"""For the archives of a layout, what they hold: the beginning of a path in the root, and in the archive."""

CLASSES = {"ade20k": 11, "coco": 10, "partnet": {"Chair-1": 5, "Lamp-1": 5}, "shapenetpart": 50}
"""Of the miniatures."""

SIZES: dict[str, dict[str, int]] = {
    "ade20k": {"train": 24, "val": 12},
    "coco": {"train": 50, "val": 50},
    "partnet": {"train": 8, "val": 8, "points": 64},
    "shapenetpart": {"train": 40, "val": 20, "points": 64},
}


def pack(root: Path, folder: Path, forms: Mapping[str, Mapping[str, str]]) -> None:
    """Zip a dataset as its authors do, with entries for folders."""
    folder.mkdir()
    for name, prefixes in forms.items():
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(root.rglob("*")):
                relative = path.relative_to(root).as_posix() + "/" * path.is_dir()
                for prefix, packed in prefixes.items():
                    if relative.startswith(prefix) and path.name != RECORD:
                        archive.write(path, packed + relative.removeprefix(prefix))


@pytest.fixture(scope="session", params=sorted(FORMS))
def packed(
    request: pytest.FixtureRequest, built: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """A layout, a dataset in it, and the folder of its archives."""
    root = built(request.param, **SIZES[request.param])
    folder = tmp_path_factory.mktemp("downloads") / request.param
    pack(root, folder, FORMS[request.param])
    return request.param, root, folder


def test_the_archives_become_the_layout(packed: tuple[str, Path, Path], tmp_path: Path) -> None:
    layout, original, downloads = packed
    archives = catalog.LAYOUTS[layout].archives
    assert set(archives) == set(FORMS[layout])
    lines = unpack_archives(archives, downloads, tmp_path)
    files = contents(original)
    del files[RECORD]
    assert contents(tmp_path) == files
    assert [line.partition(":")[0] for line in lines] == list(archives)
    assert check(layout, tmp_path, num_classes=CLASSES[layout], full=True) == []
    assert unpack_archives(archives, downloads, tmp_path) == [f"{name}: 0 new files" for name in archives]


def archive(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def test_the_command_unpacks_and_checks(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(coco, tmp_path / "downloads", FORMS["coco"])
    command = ["data", "prepare", "coco", str(tmp_path / "downloads"), str(tmp_path / "coco")]
    assert main([*command, "--num-classes", "10"]) == 0
    out = capsys.readouterr().out
    assert "val2017.zip: 50 new files" in out and "no problems found in this coco dataset" in out
    assert main(command) == 2
    assert "has 10 categories, not num_classes = 80" in capsys.readouterr().err
    (tmp_path / "downloads" / "val2017.zip").unlink()
    assert main(command) == 2
    assert "downloads/val2017.zip is missing: download it, or give the folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "unpacked"),
    [("a.txt", "a.txt"), ("b/c.txt", "b/c.txt"), ("set/a.txt", "a.txt"), ("place/a.txt", "a.txt")],
)
def test_a_folder_around_the_content_may_be_missing(name: str, unpacked: str, tmp_path: Path) -> None:
    archive(tmp_path / "set.zip", {name: b"content"})
    unpack_archives({"set.zip": "place"}, tmp_path, tmp_path / "root")
    assert contents(tmp_path / "root") == {f"place/{unpacked}": b"content"}


def test_an_unpacking_that_was_stopped_goes_on(tmp_path: Path) -> None:
    path = archive(tmp_path / "set.zip", {f"{number}.txt": bytes([number]) * 9 for number in range(4)})
    whole = path.read_bytes()
    start = whole.index(bytes([2]) * 9)
    path.write_bytes(whole[:start] + b"!" + whole[start + 1 :])
    with pytest.raises(
        InputError, match=r"set\.zip cannot be read as an archive: Bad CRC-32.* Download it again"
    ):
        unpack_archives({"set.zip": ""}, tmp_path, tmp_path / "root")
    assert sorted(contents(tmp_path / "root")) == ["0.txt", "1.txt"], "nothing half done"
    path.write_bytes(whole)
    assert unpack_archives({"set.zip": ""}, tmp_path, tmp_path / "root") == ["set.zip: 2 new files"]
    assert contents(tmp_path / "root") == {f"{number}.txt": bytes([number]) * 9 for number in range(4)}


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_archive_is_named(share: float, tmp_path: Path) -> None:
    path = archive(tmp_path / "set.zip", {"a.txt": b"content" * 99})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"set\.zip cannot be read as an archive: .* Download it again\."):
        unpack_archives({"set.zip": ""}, tmp_path, tmp_path / "root")


@pytest.mark.parametrize("name", ["../a.txt", "b/../../a.txt", "/a.txt"])
def test_nothing_is_written_out_of_the_folder(name: str, tmp_path: Path) -> None:
    archive(tmp_path / "set.zip", {"first.txt": b"1", name: b"2"})
    with pytest.raises(InputError, match="leads out of the folder"):
        unpack_archives({"set.zip": ""}, tmp_path, tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="'link', a link or a path"):
        unpack_archives({"set.zip": ""}, tmp_path, tmp_path / "root")


def test_another_file_stays(tmp_path: Path) -> None:
    archive(tmp_path / "set.zip", {"a.txt": b"theirs"})
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.txt").write_bytes(b"mine")
    with pytest.raises(
        InputError, match=r"root/a\.txt exists and is not the file of 6 bytes that is in .*set\.zip"
    ):
        unpack_archives({"set.zip": ""}, tmp_path, tmp_path / "root")
    assert (tmp_path / "root/a.txt").read_bytes() == b"mine"
