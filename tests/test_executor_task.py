"""What a job makes of a warning: its time limit, or a preemption."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from snakemake_executor_plugin_submitit.task import JobFailed, SnakemakeTask

LIMIT_S, WARNING_S = 3600, 1


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


@pytest.mark.parametrize("late", [0, 30, 60, 110])
def test_at_its_limit_a_program_without_handler_has_failed(job, late):
    """Slurm warns up to a minute early, and the job may have begun long before its Python."""
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
