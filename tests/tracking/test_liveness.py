"""Of a training on another machine, Slurm says whether it runs. A stand-in plays squeue."""

import os
import time
from pathlib import Path

import pytest

from m2pt.tracking.liveness import _SQUEUE, Liveness

ELSEWHERE = {"host": "node7", "pid": 1, "started": "2024-01-25T12:00:00+00:00"}
LONG_AGO = 1.7e9


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program; it lists the jobs in `jobs`, and notes in `asked` what it was asked."""
    program = tmp_path / "squeue"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {tmp_path}/asked\ncat {tmp_path}/jobs\n')
    program.chmod(0o755)
    (tmp_path / "jobs").write_text("17:RUNNING\n18:PENDING\n19:COMPLETING\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return program


@pytest.mark.parametrize(("job", "gone"), [("17", False), ("18", True), ("19", False), ("20", True)])
def test_a_job_that_slurm_does_not_run_is_gone(squeue: Path, tmp_path: Path, job: str, gone: bool) -> None:
    assert Liveness().is_gone(tmp_path, {**ELSEWHERE, "slurm_job": job}, LONG_AGO) is gone


def test_slurm_is_asked_once_a_minute_for_all_runs(squeue: Path, tmp_path: Path) -> None:
    liveness = Liveness()
    for job in ("17", "20", "21"):
        liveness.is_gone(tmp_path, {**ELSEWHERE, "slurm_job": job}, LONG_AGO)
    assert (tmp_path / "asked").read_text() == f"{squeue} {' '.join(_SQUEUE[1:])}\n"


def test_what_is_not_certain_is_not_said(
    squeue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {**ELSEWHERE, "slurm_job": "20"}
    assert Liveness().is_gone(tmp_path, gone, LONG_AGO)
    assert not Liveness().is_gone(tmp_path, gone, time.time())  # it may have begun since Slurm was asked
    assert not Liveness().is_gone(tmp_path, ELSEWHERE, LONG_AGO)  # no job: not Slurm's
    squeue.write_text("#!/bin/sh\necho 17:RUNNING\nexit 1\n")
    assert not Liveness().is_gone(tmp_path, gone, LONG_AGO)  # its controller is down
    squeue.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not Liveness().is_gone(tmp_path, gone, LONG_AGO)  # no Slurm here


def test_of_another_user_s_run_nothing_is_said(
    squeue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert not Liveness().is_gone(tmp_path, {**ELSEWHERE, "slurm_job": "20"}, LONG_AGO)
