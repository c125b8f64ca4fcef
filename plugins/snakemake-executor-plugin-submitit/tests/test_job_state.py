"""The state of a job, from its result file, the cluster's reports and its log."""

import pytest
from submitit.core.utils import cloudpickle_dump

from snakemake_executor_plugin_submitit.job_state import CONFIRMATIONS, SubmittedJob, check_job, log_tail


@pytest.fixture
def job(tmp_path):
    return SubmittedJob("5", tmp_path)


def test_an_active_job_and_a_silent_cluster_leave_a_job_unfinished(job):
    for states in [{"5": "RUNNING"}, None] * 20:
        assert check_job(job, states, unknown_checks=2).succeeded is None


@pytest.mark.parametrize("state", ["NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "PREEMPTED", "CANCELLED"])
def test_an_end_without_a_result_is_a_failure_once_confirmed(job, state):
    assert [check_job(job, {"5": state}, 99).succeeded for _ in range(CONFIRMATIONS - 1)] == [None] * (
        CONFIRMATIONS - 1
    )
    assert check_job(job, {"5": "PENDING"}, 99).succeeded is None  # Slurm has queued it again
    states = [check_job(job, {"5": state}, 99) for _ in range(CONFIRMATIONS)]
    assert states[-2].succeeded is None and states[-1].succeeded is False
    assert states[-1].reason.startswith(state)


def test_a_job_that_the_cluster_does_not_know_fails(job):
    states = [check_job(job, {}, unknown_checks=4) for _ in range(4)]
    assert [state.succeeded for state in states] == [None, None, None, False]
    assert "unknown to the cluster in 4 checks" in states[-1].reason


def test_the_result_of_a_completed_job_may_appear_late(job):
    states = [check_job(job, {"5": "COMPLETED"}, unknown_checks=9) for _ in range(9)]
    assert [state.succeeded for state in states] == [None] * 8 + [False]


def test_the_result_overrules_the_cluster(job):
    cloudpickle_dump(("success", 0), job.paths.result_pickle)
    assert check_job(job, {"5": "FAILED"}, 1).succeeded is True
    job.paths.result_pickle.write_bytes(b"\x80")  # half of it has arrived
    assert check_job(job, {"5": "COMPLETED"}, 2).succeeded is None


def test_out_of_memory_is_added_to_the_failure_of_a_job_that_outlived_its_program(job):
    cloudpickle_dump(("error", "Traceback\nJobFailed: exit code 1"), job.paths.result_pickle)
    assert [check_job(job, {"5": "OUT_OF_MEMORY"}, 1).reason for _ in range(CONFIRMATIONS)][-1].startswith(
        "OUT_OF_MEMORY: JobFailed: exit code 1"
    )


def test_out_of_memory_is_recognized_in_the_log(job):
    job.paths.stdout.write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=5.batch.\n")
    assert [check_job(job, {"5": "FAILED"}, 1).reason for _ in range(CONFIRMATIONS)][-1].startswith(
        "OUT_OF_MEMORY (FAILED)"
    )


def test_the_end_of_the_log_has_no_traceback_of_submitit(job):
    assert "does not exist" in log_tail(job)
    job.paths.stdout.write_text(
        "x\n" * 100 + "last\nsubmitit ERROR (2030-01-01) - Submitted job triggered\nTraceback\n"
    )
    lines = log_tail(job).splitlines()
    assert lines[-1] == "  last" and len(lines) == 21
