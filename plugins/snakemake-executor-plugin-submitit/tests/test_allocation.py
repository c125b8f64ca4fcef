"""What Slurm reports about the job of this process, and requeueing it."""

import time

import pytest

from snakemake_executor_plugin_submitit import allocation
from snakemake_executor_plugin_submitit.allocation import Allocation, current_allocation


def test_the_state_is_that_of_the_array_task(scontrol):
    scontrol(end=60, preempt=-1)
    found = current_allocation()
    assert found == Allocation(running=True, preempted=True, end=pytest.approx(time.time() + 60, abs=2))


def test_there_is_none_outside_a_job_or_without_an_answer(scontrol, monkeypatch, capsys):
    scontrol("exit 1")
    assert current_allocation() is None
    assert "Slurm does not report the state of this job" in capsys.readouterr().out
    monkeypatch.delenv("SUBMITIT_EXECUTOR")
    assert current_allocation() is None and not capsys.readouterr().out


def test_a_job_that_is_cancelled_meanwhile_is_not_requeued(scontrol, tmp_path, monkeypatch):
    monkeypatch.setattr(allocation, "_RETRY_PAUSES_S", (0, 0))
    calls = tmp_path / "calls"
    scontrol(f"echo $* >> {calls}; exit 1")
    allocation.requeue(is_cancelled=lambda: True)
    assert calls.read_text() == "requeue 7_2\n"
