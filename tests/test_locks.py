"""A lock belongs to one process, and to none once that process has ended, however it ends."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from m2pt import session
from m2pt.errors import InputError, RunError
from m2pt.locks import LockedError, holder, locked
from m2pt.run_files import INTERRUPTED, LOCK
from m2pt.training.signals import Interrupted

LOCK_AND_SLEEP = """
import sys, time
from pathlib import Path
from m2pt.locks import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1]).with_name("ended").touch()
"""

LockElsewhere = Callable[[Path, float], "subprocess.Popen[str]"]


@pytest.fixture
def lock_elsewhere() -> Iterator[LockElsewhere]:
    """Have another process lock a file for some seconds."""
    started: list[subprocess.Popen[str]] = []

    def begin(path: Path, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", LOCK_AND_SLEEP, str(path), str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def failing(number: int) -> Callable[..., None]:
    """Return a system call that fails with an error number."""
    return Mock(side_effect=OSError(number, os.strerror(number)))


def test_the_holder_is_named_and_a_killed_process_holds_nothing(tmp_path, lock_elsewhere):
    path = tmp_path / "folder" / "lock"
    assert holder(path) is None and not path.parent.exists()
    other = lock_elsewhere(path, 60)
    with pytest.raises(LockedError, match=f"process {other.pid} on ") as error, locked(path):
        pass
    assert holder(path) == str(error.value)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert holder(path) is None
    with locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(LockedError, match=f"process {os.getpid()} on "), locked(path):
            pass


def test_a_process_that_is_ending_is_waited_for(tmp_path, lock_elsewhere):
    lock_elsewhere(tmp_path / "lock", 1)
    with locked(tmp_path / "lock", timeout=60):
        assert (tmp_path / "ended").exists()


def test_one_thread_s_lock_holds_against_another_thread(tmp_path):
    outcome = []

    def lock_again() -> None:
        try:
            with locked(tmp_path / "lock"):
                outcome.append("locked twice")
        except LockedError:
            outcome.append("refused")

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=lock_again)
        thread.start()
        thread.join()
    assert outcome == ["refused"] and holder(tmp_path / "lock") is None


def test_a_forked_child_neither_releases_the_lock_nor_keeps_it(tmp_path):
    with locked(tmp_path / "lock"):
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        if (short := os.fork()) == 0:
            os._exit(0)
        os.waitpid(short, 0)
        assert holder(tmp_path / "lock") is not None
    try:
        assert holder(tmp_path / "lock") is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_system_call_flock_sees_the_lock(tmp_path):
    """The program `flock` calls it, with which `.ci/run` waits for the tracker to end."""
    path = tmp_path / "lock"
    lock = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", lock, str(path)]
    with locked(path):
        held = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        assert held.returncode == 1 and "BlockingIOError" in held.stderr
    assert path.exists() and subprocess.run(command).returncode == 0


def test_a_lock_of_another_user_counts_as_held(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "open", Mock(side_effect=PermissionError))
    assert holder(tmp_path / "lock") == "a process of another user"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_file_system_without_locks_gets_a_line_and_no_lock(tmp_path, monkeypatch, capsys, number):
    """Also no lock by the mere existence of a file, which `kill -9` would leave behind."""
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with locked(tmp_path / "lock"):
        assert f"lock: not locked ({os.strerror(number)})" in capsys.readouterr().err
        assert holder(tmp_path / "lock") is None
        with locked(tmp_path / "lock"):
            pass


def test_other_errors_of_a_file_system_are_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), locked(tmp_path / "lock"):
        pass


def test_a_lock_that_cannot_be_released_is_no_failure_of_what_it_was_for(tmp_path, monkeypatch):
    with locked(tmp_path / "lock"):
        monkeypatch.setattr(fcntl, "flock", failing(errno.ESTALE))


def test_two_trainings_do_not_meet_in_a_folder(tmp_path, lock_elsewhere, monkeypatch, capsys):
    monkeypatch.setattr(session, "_ENDING_S", 0)
    other = lock_elsewhere(tmp_path / LOCK, 60)
    told = f"process {other.pid} on .* is training here; wait for it"
    with pytest.raises(RunError, match=told), session.lock_run_folder(tmp_path):
        pass
    assert f"waiting up to 0 s for process {other.pid} on " in capsys.readouterr().out
    monkeypatch.setattr(session, "_ENDING_S", 60)
    monkeypatch.setattr(time, "sleep", lambda _: signal.raise_signal(signal.SIGTERM))
    with (
        pytest.raises(Interrupted),
        session.lock_run_folder(tmp_path),
    ):  # while it waits, the folder is another's
        pass
    assert not (tmp_path / INTERRUPTED).exists()
    monkeypatch.setenv("RANK", "1")  # one of the processes of a training: only the main one locks the folder
    with session.lock_run_folder(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="cannot be written"),
        session.lock_run_folder(tmp_path / "file" / "run"),
    ):
        pass
