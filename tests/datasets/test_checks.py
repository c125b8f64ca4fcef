"""The checks that layouts share: missing files and duplicates in lists."""

import errno
import os
from pathlib import Path

import pytest

from m2pt.datasets.checks import duplicates, missing_files

LIST = Path("list.txt")


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(50):
            (tmp_path / folder / str(number)).touch()
    calls: list[Path] = []
    scandir, stat = os.scandir, Path.stat
    monkeypatch.setattr(os, "scandir", lambda path: calls.append(Path(path)) or scandir(path))
    monkeypatch.setattr(Path, "stat", lambda path, **options: calls.append(path) or stat(path, **options))
    names = [f"{folder}/{number}" for number in range(50) for folder in ("a", "b", f"{tmp_path}/a")]
    assert missing_files(tmp_path, names, LIST) == {}
    assert calls == [tmp_path / "a", tmp_path / "b", tmp_path / "a"]


def test_absent_files_are_told_from_folders_links_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("file")
    expected = {
        "folder": f"{tmp_path}/folder is a folder, but list.txt lists it.",
        "pipe": f"{tmp_path}/pipe is a pipe or device, but list.txt lists it.",
        "broken": f"{tmp_path}/broken is a broken link, but list.txt lists it.",
        "loop": f"{tmp_path}/loop cannot be read ({os.strerror(errno.ELOOP)}), but list.txt lists it.",
        "none": f"{tmp_path}/none is missing, but list.txt lists it.",
        "no/ne": f"{tmp_path}/no/ne is missing, but list.txt lists it.",
        "file/x": f"{tmp_path}/file/x cannot be read (Not a directory), but list.txt lists it.",
        "file ": f"'{tmp_path}/file ' is missing, but list.txt lists it.",
        "\0": f"'{tmp_path}/\\x00' cannot be read (embedded null byte), but list.txt lists it.",
        "/nowhere": "/nowhere is missing, but list.txt lists it.",
    }
    sound = ["file", "link", "./file", "folder/../file", str(tmp_path / "file")]
    assert missing_files(tmp_path, [*expected, *sound], LIST) == expected


def test_repeated_names_within_a_list_and_over_lists() -> None:
    seen: dict[str, Path] = {}
    assert duplicates("ab", LIST, seen) == []
    assert duplicates("cbc", Path("other"), seen) == [
        "other has the duplicate entry b: list.txt lists it too.",
        "other has the duplicate entry c.",
    ]
