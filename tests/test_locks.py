"""A lock is one process's, and nobody's once that has ended."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from m2pt.commands import trained
from m2pt.errors import InputError, RunError
from m2pt.locks import TRAINING, Held, holder, holding
from m2pt.training.signals import INTERRUPTED, Interrupted

HOLD = """
import sys, time
from pathlib import Path
from m2pt.locks import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1]).with_name("ended").touch()
"""


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[object]:
    """Have another process hold a file for so many seconds."""
    started: list[subprocess.Popen[str]] = []

    def begin(path: Path, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(path), str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_the_holder_is_named_and_a_killed_one_holds_nothing(tmp_path, hold):
    path = tmp_path / "folder" / "lock"
    assert holder(path) is None and not path.exists()
    other = hold(path, 60)
    with pytest.raises(Held, match=f"process {other.pid} on ") as held, holding(path):
        pass
    assert holder(path) == str(held.value)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert holder(path) is None
    with holding(path), pytest.raises(Held), holding(path):
        pass


def test_one_that_ends_is_waited_for(tmp_path, hold):
    hold(tmp_path / "lock", 1)
    with holding(tmp_path / "lock", patience=60):
        assert (tmp_path / "ended").exists()


def test_a_child_that_lives_on_does_not_keep_it(tmp_path):
    with holding(tmp_path / "lock"):
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
    try:
        assert holder(tmp_path / "lock") is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_that_may_not_be_read_counts_as_held(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "open", Mock(side_effect=PermissionError))
    assert holder(tmp_path / "lock") == "a process of another user"


def test_a_file_system_without_locks_is_told_of_and_any_other_error_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSYS, "no locks")))
    with holding(tmp_path / "lock"):
        assert "lock: not locked (no locks)" in capsys.readouterr().out
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"), holding(tmp_path / "lock"):
        pass


def test_two_trainings_do_not_meet_in_a_folder(tmp_path, hold, monkeypatch):
    monkeypatch.setattr(trained, "_ENDING_S", 0)
    other = hold(tmp_path / TRAINING, 60)
    told = f"process {other.pid} on .* trains here already; wait for it"
    with pytest.raises(RunError, match=told), trained.at_work_in(tmp_path):
        pass
    monkeypatch.setattr(trained, "_ENDING_S", 60)
    monkeypatch.setattr(time, "sleep", lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted), trained.at_work_in(tmp_path):  # while it waits, the folder is another's
        pass
    assert not (tmp_path / INTERRUPTED).exists()
    monkeypatch.setenv("RANK", "1")  # one of the processes of a training: the main one holds the folder
    with trained.at_work_in(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), trained.at_work_in(tmp_path / "file" / "run"):
        pass
