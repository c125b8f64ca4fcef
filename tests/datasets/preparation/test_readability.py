"""A check of many files: each is read once, until it changes, whatever stops the check."""

from collections.abc import Callable
from pathlib import Path

import pytest

from m2pt.datasets.preparation.readability import RECORD, unreadable


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number} \u00fc\n.wav" for number in range(6)]
    for path in paths:
        path.write_text("content")
    return paths


def reading(read: list[Path], odd: list[Path]) -> Callable[[Path], str | None]:
    """Return a check that notes what it reads, and finds a problem in some."""

    def problem(path: Path) -> str | None:
        read.append(path)
        return f"{path} is odd." if path in odd else None

    return problem


def test_what_was_read_is_read_again_only_after_a_change(paths: list[Path], tmp_path: Path) -> None:
    read: list[Path] = []
    root, odd = tmp_path / "deep" / "root", paths[1:3]
    problems = {path: f"{path} is odd." for path in odd}
    assert unreadable(paths[:4], reading(read, odd), root) == problems
    assert unreadable(paths, reading(read, odd), root) == problems
    assert sorted(read) == sorted(paths), "each once"
    paths[1].write_text("another content")
    paths[2].unlink()
    assert unreadable(paths, reading(read, []), root) == {
        paths[2]: f"{paths[2]} cannot be read: No such file or directory."
    }
    assert read[6:] == [paths[1]]


@pytest.mark.parametrize("bytes_lost", range(1, 90, 7))
def test_a_record_that_was_cut_off_counts_up_to_there(
    bytes_lost: int, paths: list[Path], tmp_path: Path
) -> None:
    read: list[Path] = []
    unreadable(paths, reading(read, []), tmp_path)
    record = tmp_path / RECORD
    record.write_bytes(record.read_bytes()[:-bytes_lost])
    lines = record.read_bytes().count(b"]\n") + record.read_bytes().endswith(b"]")
    unreadable(paths, reading(read, []), tmp_path)
    assert len(read) == 6 + 6 - lines
    unreadable(paths, reading(read, []), tmp_path)
    assert len(read) == 6 + 6 - lines, "all are known"


def test_an_error_keeps_what_was_read(paths: list[Path], tmp_path: Path) -> None:
    def failing(path: Path) -> str | None:
        if path == paths[3]:
            raise MemoryError
        return None

    with pytest.raises(MemoryError):
        unreadable(paths, failing, tmp_path)
    read: list[Path] = []
    unreadable(paths, reading(read, []), tmp_path)
    assert read == paths[3:]


def test_a_check_of_known_files_leaves_the_record_as_it_is(paths: list[Path], tmp_path: Path) -> None:
    record = tmp_path / RECORD
    unreadable(paths, reading([], []), tmp_path)
    whole = record.read_bytes()
    unreadable(paths, reading([], []), tmp_path)
    assert record.read_bytes() == whole
    record.write_bytes(whole[:-1])  # all but the end of the last line
    unreadable(paths, reading([], []), tmp_path)
    assert record.read_bytes() == whole
