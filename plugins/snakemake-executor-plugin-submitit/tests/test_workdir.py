"""One Snakemake at a time in a folder, and paths that do not reach a job are refused."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.workdir import check_folder, check_quotable, lock

LOCK_AND_SLEEP = """
import sys, time
from pathlib import Path
from snakemake_executor_plugin_submitit.workdir import lock
held = lock(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


def test_the_lock_names_its_process_and_ends_with_it(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", LOCK_AND_SLEEP, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(
            WorkflowError, match=rf"another Snakemake \(process {other.pid} on .*delete {path}"
        ):
            lock(path)
        other.send_signal(signal.SIGKILL)
    lock(path).release()


def test_a_child_that_lives_on_does_not_keep_the_lock_which_any_thread_releases(tmp_path):
    held = lock(tmp_path / "lock")
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    try:
        with pytest.raises(WorkflowError, match="another Snakemake"):
            lock(tmp_path / "lock")
        thread = threading.Thread(target=held.release)
        thread.start()
        thread.join()
        lock(tmp_path / "lock").release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_file_system_without_locks_gets_a_warning_and_no_lock(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(number, os.strerror(number))))
    for _ in range(2):
        lock(tmp_path / "lock")
        assert "lock: not locked" in capsys.readouterr().out
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        lock(tmp_path / "lock")


def test_paths_that_would_reach_a_job_changed_are_refused():
    check_folder("/data/it's ünusual")
    with pytest.raises(WorkflowError, match="expand % in a path"):
        check_folder("/data/100%/x")
    check_quotable(["/data/it's", '/data/"x"', "/data/$HOME"])
    for path in ("/data/a\\b", "/data/it's $HOME", "/data/it's `x`"):
        with pytest.raises(WorkflowError, match="cannot pass this path"):
            check_quotable([path])
