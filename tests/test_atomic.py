"""Atomic writes: temporary files of killed processes are removed by the next write, and no others."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m2pt import atomic
from m2pt.datasets.miniature.staging import staged

WRITER = """
import sys, time
from pathlib import Path
from m2pt.atomic import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""
STAGER = WRITER.replace(
    "m2pt.atomic import replacing", "m2pt.datasets.miniature.staging import staged as replacing"
)
STAGER = STAGER.replace("temporary.write_text", '(temporary / "file").write_text')


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A process that is writing `table.csv`."""
    yield from writing(WRITER, tmp_path / "table.csv")


def writing(code: str, path: Path) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_files_of_a_running_process_are_kept(tmp_path: Path, writer: subprocess.Popen) -> None:
    (part,) = hidden(tmp_path)
    assert atomic.PART.fullmatch(part)
    atomic.write_text(tmp_path / "table.csv", "whole")
    atomic.write_text(tmp_path / "other.csv", "whole")
    assert hidden(tmp_path) == [part]


@pytest.mark.parametrize("name", ["table.csv", "other.csv"])
def test_files_of_a_killed_process_are_removed_by_the_next_write(
    tmp_path: Path, writer: subprocess.Popen, name: str
) -> None:
    writer.kill()
    os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)  # nobody has asked for its exit code yet
    assert len(hidden(tmp_path)) == 1
    atomic.write_text(tmp_path / name, "whole")
    assert hidden(tmp_path) == []
    assert (tmp_path / name).read_text() == "whole"


def test_files_of_a_stopped_process_are_kept(tmp_path: Path, writer: subprocess.Popen) -> None:
    writer.send_signal(signal.SIGSTOP)
    atomic.write_text(tmp_path / "other.csv", "whole")
    assert len(hidden(tmp_path)) == 1


def test_a_half_built_dataset_is_removed_by_the_next_build(tmp_path: Path) -> None:
    for process in writing(STAGER, tmp_path / "imagenet"):
        (part,) = hidden(tmp_path)
        with staged(tmp_path / "imagenet") as folder:
            (folder / "miniature.json").write_text("{}")
        assert hidden(tmp_path) == [part]
        process.kill()
        process.wait()
        with staged(tmp_path / "imagenet") as folder:
            (folder / "miniature.json").write_text("{}")
        assert hidden(tmp_path) == []


def test_a_reused_process_id_is_another_process(tmp_path: Path) -> None:
    part = atomic.part_of(tmp_path / "table.csv")
    part.touch()
    assert not atomic.is_abandoned(part)
    earlier = part.with_name(re.sub(r"-\d+-(\w+\.part)$", r"-17-\1", part.name))
    earlier.touch()
    assert earlier != part and atomic.is_abandoned(earlier)


@pytest.mark.parametrize("name", [".thesis.pdf.1a2b.part", ".backup.2024.part"])
def test_files_of_other_programs_are_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    atomic.write_text(tmp_path / "table.csv", "whole")
    assert (tmp_path / name).exists()


def test_files_from_another_machine_are_kept_for_a_day(tmp_path: Path) -> None:
    part = tmp_path / ".table.csv.0badcafe-17-4711-a1b2c3.part"
    part.touch()
    atomic.write_text(tmp_path / "table.csv", "whole")
    assert part.exists()
    day_ago = time.time() - (atomic.QUIET_HOURS * 3600 + 60)
    os.utime(part, (day_ago, day_ago))
    atomic.write_text(tmp_path / "table.csv", "whole")
    assert not part.exists()


def test_files_with_other_names_are_kept(tmp_path: Path) -> None:
    names = [".hidden", "table.csv.part", ".part", ".table.part", ".table.csv.notes.part"]
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    atomic.write_text(tmp_path / "table.csv", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {*names, "table.csv"}


def test_temporary_names_are_unique_and_fit_a_long_target(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 180 + ".csv")
    assert len({atomic.part_of(path) for _ in range(50)}) == 50
    atomic.write_text(path, "whole")
    assert path.read_text() == "whole" and hidden(tmp_path) == []
    shutil.rmtree(tmp_path)
