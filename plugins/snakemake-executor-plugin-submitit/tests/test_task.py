"""How a job treats a warning: at its time limit or before a preemption, by Slurm's report or by the clock."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from snakemake_executor_plugin_submitit import allocation
from snakemake_executor_plugin_submitit.task import JobFailed, SnakemakeTask

HOUR_S = 3600
LIMIT_S, WARNING_S = HOUR_S, 1
NO_HANDLER = "TIMEOUT: reached the time limit of 60 min, and the program does not handle"


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[[float], SnakemakeTask]]:
    """Return a function that makes a job which has run a program without handlers for some seconds."""
    programs: list[subprocess.Popen[bytes]] = []

    def after(seconds: float) -> SnakemakeTask:
        task = SnakemakeTask("sleep 60", tmp_path / "marker", 10, WARNING_S, LIMIT_S, max_restarts=3)
        task._earlier_children = frozenset(psutil.Process().children())
        task._process = subprocess.Popen(["sleep", "60"])
        task._started = time.monotonic() - seconds
        programs.append(task._process)
        return task

    yield after
    for program in programs:
        program.kill()
        program.wait()


@pytest.mark.parametrize("seconds", [0, 10, HOUR_S / 2])
def test_at_the_time_limit_by_slurm_s_report(job, scontrol, seconds):
    """However short the limit, and however late this process began."""
    scontrol(end=60)
    with pytest.raises(JobFailed, match=NO_HANDLER):
        job(seconds).checkpoint()


@pytest.mark.parametrize("answer", [{"end": 60, "preempt": -1}, {"end": HOUR_S}, {"end": 300}], ids=str)
def test_not_at_the_time_limit_by_slurm_s_report(job, scontrol, answer):
    scontrol(**answer)
    assert job(LIMIT_S).checkpoint().function.restarts == 1


def test_a_preemption_before_the_last_start_does_not_count(job, scontrol):
    scontrol(end=60, preempt=-2 * HOUR_S)
    with pytest.raises(JobFailed, match="TIMEOUT"):
        job(10).checkpoint()


def test_with_nothing_saved_a_job_fails_at_its_limit_and_restarts_after_a_preemption(job, scontrol):
    scontrol(end=60)
    task = job(10)
    task.marker.write_text("anew")
    with pytest.raises(JobFailed, match=r"TIMEOUT: .* would start from the beginning"):
        task.checkpoint()
    scontrol(end=60, preempt=-1)
    assert task.checkpoint().function.restarts == 1


@pytest.mark.parametrize("answer", [{"preempt": -1}, {"state": "COMPLETING"}, {"end": 60}], ids=str)
def test_programs_that_slurm_stops_count_as_warned(job, scontrol, answer):
    scontrol()
    assert not job(10)._is_being_ended()
    scontrol(**answer)
    assert job(10)._is_being_ended()


def test_restarts_without_a_warning_are_counted(job):
    task = job(10)
    task.marker.touch()
    for requested, unwarned in [(True, 1), (True, 2), (False, 0), (True, 1)]:
        task._requested_by_program = requested
        assert task.checkpoint().function.unwarned == task.unwarned == unwarned
        task.restarts = 0


def test_requeueing_is_repeated_while_the_controller_is_busy(job, scontrol, tmp_path, monkeypatch):
    monkeypatch.setattr(allocation, "_RETRY_PAUSES_S", (0, 0))
    calls = tmp_path / "calls"
    scontrol(f"echo $* >> {calls}; test $(wc -l < {calls}) = 3")
    task = job(0)
    task.command = "true"
    error = subprocess.CalledProcessError(1, ["scontrol", "requeue", "7"])
    monkeypatch.setattr(task, "_wait_for_exit", Mock(side_effect=error))  # out of submitit's signal handler
    with pytest.raises(SystemExit):
        task()
    assert calls.read_text() == 3 * "requeue 7_2\n"
    scontrol("exit 1")
    with pytest.raises(subprocess.CalledProcessError):
        task()


@pytest.mark.parametrize("late", [0, 30, 60, 110])
def test_at_the_time_limit_by_the_clock(job, late):
    """The warning comes up to a minute early, and the job may have begun long before its Python."""
    with pytest.raises(JobFailed, match=NO_HANDLER):
        job(LIMIT_S - WARNING_S - late).checkpoint()


@pytest.mark.parametrize("elapsed", [0, LIMIT_S / 2, LIMIT_S - 180])
def test_preempted_by_the_clock(job, elapsed):
    task = job(elapsed)
    again = task.checkpoint()
    assert again is not None and again.function.restarts == 1
    assert task._process.wait() < 0  # what did not save is stopped


def test_a_program_that_has_saved_resumes_after_its_limit_within_the_allowed_restarts(job):
    task = job(LIMIT_S)
    task.marker.touch()
    assert task.checkpoint().function.restarts == 1
    last = job(LIMIT_S)
    last.restarts = 3
    with pytest.raises(JobFailed, match="restarted 3 times; no more restarts are allowed"):
        last.checkpoint()


def test_the_sigcont_before_a_warning_is_not_logged(job, tmp_path):
    """Both come at once: `logging` swallows what a signal handler raises while a line is being written."""
    continued = []
    previous = signal.signal(signal.SIGCONT, lambda *_: continued.append(1))
    try:
        task = job(0)
        task.command = f"kill -CONT $PPID; touch {tmp_path}/sent"
        assert task() == 0 and (tmp_path / "sent").exists() and not continued
        signal.raise_signal(signal.SIGCONT)
        assert continued == [1]
    finally:
        signal.signal(signal.SIGCONT, previous)
