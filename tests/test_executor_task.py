"""What a job makes of a warning: its time limit, or a preemption; by what Slurm says, or by the clock."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from snakemake_executor_plugin_submitit import own_job
from snakemake_executor_plugin_submitit.task import JobFailed, SnakemakeTask

LIMIT_S, WARNING_S = 3600, 1
HOUR_S = 3600


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[[float], SnakemakeTask]]:
    """A job that has run a program without handlers for so many seconds."""
    programs: list[subprocess.Popen[bytes]] = []

    def after(seconds: float) -> SnakemakeTask:
        task = SnakemakeTask("sleep 60", tmp_path / "marker", 10, WARNING_S, LIMIT_S, max_restarts=3)
        task._not_ours = frozenset(psutil.Process().children())
        task._process = subprocess.Popen(["sleep", "60"])
        task._started = time.monotonic() - seconds
        programs.append(task._process)
        return task

    yield after
    for program in programs:
        program.kill()
        program.wait()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A Slurm that says when this job, begun an hour ago, ends and was preempted, in seconds from now."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # as the last task of an array has it
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")

    def said(script: str = "", *, state: str = "RUNNING", end: float = HOUR_S, preempt: float | None = None):
        def when(seconds: float | None) -> str:
            return "None" if seconds is None else f"{time.time() + seconds:.0f}"

        answer = f"JobId=9 ArrayJobId=7 ArrayTaskId=2 JobName=train UserId=me(1) JobState={state} Requeue=1"
        answer += f" TimeLimit=01:00:00 StartTime={when(-HOUR_S)} EndTime={when(end)} Deadline=N/A"
        answer += (
            f" PreemptEligibleTime={when(-HOUR_S)} PreemptTime={when(preempt)} SuspendTime=None Comment=a b"
        )
        asked = 'test "$SLURM_TIME_FORMAT $*" = "%s --oneliner show job 7_2" || exit 1'
        lines = ["#!/bin/sh", script or f"{asked}; echo '{answer}'"]
        (tools / "scontrol").write_text("\n".join(lines))
        (tools / "scontrol").chmod(0o755)

    return said


@pytest.mark.parametrize("seconds", [0, 10, HOUR_S / 2])
def test_slurm_says_that_the_limit_has_come(job, slurm, seconds):
    """However short the limit, and however late this process began."""
    slurm(end=60)
    with pytest.raises(JobFailed, match="TIMEOUT: the time limit of 60 min is up, and the program handles"):
        job(seconds).checkpoint()


@pytest.mark.parametrize("answer", [{"end": 60, "preempt": -1}, {"end": HOUR_S}, {"end": 300}], ids=str)
def test_slurm_says_that_it_is_something_else(job, slurm, answer):
    slurm(**answer)
    assert job(LIMIT_S).checkpoint().function.restarts == 1


def test_an_earlier_preemption_does_not_count(job, slurm):
    slurm(end=60, preempt=-2 * HOUR_S)
    with pytest.raises(JobFailed, match="TIMEOUT"):
        job(10).checkpoint()


def test_a_program_that_would_begin_anew_has_failed_at_its_limit_alone(job, slurm):
    slurm(end=60)
    task = job(10)
    task.marker.write_text("anew")
    with pytest.raises(JobFailed, match=r"TIMEOUT: .* would begin anew"):
        task.checkpoint()
    slurm(end=60, preempt=-1)
    assert task.checkpoint().function.restarts == 1


@pytest.mark.parametrize("answer", [{"preempt": -1}, {"state": "COMPLETING"}, {"end": 60}], ids=str)
def test_what_slurm_stops_counts_as_warned(job, slurm, answer):
    slurm()
    assert not job(10)._is_being_ended()
    slurm(**answer)
    assert job(10)._is_being_ended()


def test_programs_may_ask_three_times_in_a_row(job):
    task = job(10)
    task.marker.touch()
    for asked, unwarned in [(True, 1), (True, 2), (False, 0), (True, 1)]:
        task._asked_by_program = asked
        assert task.checkpoint().function.unwarned == task.unwarned == unwarned
        task.restarts = 0


def test_a_busy_controller_is_asked_again_to_queue_the_job(job, slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(own_job, "_PAUSES_S", (0, 0))
    calls = tmp_path / "calls"
    slurm(f"echo $* >> {calls}; test $(wc -l < {calls}) = 3")
    task = job(0)
    task.command = "true"
    error = subprocess.CalledProcessError(1, ["scontrol", "requeue", "7"])
    monkeypatch.setattr(task, "_wait_for_exit", Mock(side_effect=error))  # out of submitit's signal handler
    with pytest.raises(SystemExit):
        task()
    assert calls.read_text() == 3 * "requeue 7_2\n"
    slurm("exit 1")
    with pytest.raises(subprocess.CalledProcessError):
        task()


def test_a_job_that_is_cancelled_meanwhile_is_not_brought_back(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(own_job, "_PAUSES_S", (0, 0))
    calls = tmp_path / "calls"
    slurm(f"echo $* >> {calls}; exit 1")
    own_job.queue_again(given_up=lambda: True)
    assert calls.read_text() == "requeue 7_2\n"


@pytest.mark.parametrize("late", [0, 30, 60, 110])
def test_by_the_clock_a_program_without_handler_has_failed_at_its_limit(job, late):
    """The warning comes up to a minute early, and the job may have begun long before its Python."""
    with pytest.raises(JobFailed, match="TIMEOUT: the time limit of 60 min is up, and the program handles"):
        job(LIMIT_S - WARNING_S - late).checkpoint()


@pytest.mark.parametrize("elapsed", [0, LIMIT_S / 2, LIMIT_S - 180])
def test_preempted_before_it_starts_over(job, elapsed):
    task = job(elapsed)
    again = task.checkpoint()
    assert again is not None and again.function.restarts == 1
    assert task._process.wait() < 0  # what did not save is stopped


def test_a_program_that_has_saved_goes_on_after_its_limit_and_not_for_ever(job):
    task = job(LIMIT_S)
    task.marker.touch()
    assert task.checkpoint().function.restarts == 1
    last = job(LIMIT_S)
    last.restarts = 3
    with pytest.raises(JobFailed, match="restarts: 3, and no more are allowed"):
        last.checkpoint()


def test_the_sigcont_before_a_warning_is_not_logged_since_a_failure_would_be_lost_there(job, tmp_path):
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
