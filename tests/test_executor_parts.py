"""The executor's parts by themselves: requests, Slurm's lines, what becomes of a job, the ledger."""

import pytest
from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import cloudpickle_dump

from snakemake_executor_plugin_submitit.judgement import CONFIRMATIONS, Submitted, judge, log_tail
from snakemake_executor_plugin_submitit.ledger import Ledger
from snakemake_executor_plugin_submitit.resources import Request, request_of
from snakemake_executor_plugin_submitit.slurm import parse


def test_resources_become_a_request():
    resources = {
        "slurm_partition": "gpu",
        "slurm_account": "lab",
        "qos": "long",
        "constraint": "a100",
        "nodes": 2,
        "gpus": "a100:4",
        "mem_mb": 9000,
        "runtime": 30,
        "slurm_extra": "--exclusive --mail-type=END",
        "tmpdir": "/tmp",
    }
    parameters = request_of("train", resources, threads=3).slurm()
    assert {name: parameters[name] for name in ("time", "nodes", "ntasks_per_node", "cpus_per_task")} == {
        "time": 30,
        "nodes": 2,
        "ntasks_per_node": 1,
        "cpus_per_task": 3,
    }
    assert parameters["additional_parameters"] == {
        "partition": "gpu",
        "account": "lab",
        "qos": "long",
        "constraint": "a100",
        "gpus-per-node": "a100:4",
        "mem": "9000M",
        "exclusive": True,
        "mail-type": "END",
    }
    assert request_of("train", {}, threads=1) == Request(1, "", 1, None, 60)
    assert request_of("train", {"mem_mb_per_cpu": 100, "mem_mb": 5}, 1).slurm()["additional_parameters"] == {
        "mem-per-cpu": "100M"
    }
    assert request_of("train", {"gpus": 0, "gres": "shard:2"}, 1).slurm()["additional_parameters"] == {
        "gres": "shard:2"
    }


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"nodes": 0}, "rule train: resource nodes=0"),
        ({"runtime": "two hours"}, "set-resources: {train: {runtime: 1}}"),
        ({"gpus": 1, "gres": "gpu:1"}, "both ask for GPUs"),
        ({"partition": "gpu"}, "there is no resource partition; it is called slurm_partition"),
        ({"gpus": "four"}, "give a number or type:number"),
        ({"slurm_extra": "-p gpu"}, "'-p' is not of the form --option=value"),
        ({"slurm_extra": "--signal=B:TERM@9"}, "--signal is set by the executor"),
        ({"slurm_extra": "--time=4:00:00"}, "instead of --time set the resource runtime"),
    ],
)
def test_bad_resources_are_named(resources, words):
    with pytest.raises(WorkflowError, match=words.replace("{", r"\{")):
        request_of("train", resources, threads=1)


def test_lines_of_slurm_are_read():
    text = (
        "7_[0,2-3%4]|PENDING\n7_1|RUNNING\n8|CANCELLED by 1000\n8.batch|CANCELLED\n9|\n6_[1,3,...]|PENDING\n"
    )
    assert parse(text) == {
        "7_0": "PENDING",
        "7_2": "PENDING",
        "7_3": "PENDING",
        "7_1": "RUNNING",
        "8": "CANCELLED",
        "9": "",
    }


@pytest.fixture
def job(tmp_path):
    return Submitted("5", tmp_path)


def test_a_job_alive_or_a_cluster_without_an_answer_decides_nothing(job):
    for states in [{"5": "RUNNING"}, None] * 20:
        assert judge(job, states, unknown_checks=2).done is None


@pytest.mark.parametrize("state", ["NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "PREEMPTED", "CANCELLED"])
def test_an_end_without_a_result_counts_once_it_is_confirmed(job, state):
    assert [judge(job, {"5": state}, 99).done for _ in range(CONFIRMATIONS - 1)] == [None] * (
        CONFIRMATIONS - 1
    )
    assert judge(job, {"5": "PENDING"}, 99).done is None  # Slurm has queued it again
    verdicts = [judge(job, {"5": state}, 99) for _ in range(CONFIRMATIONS)]
    assert verdicts[-2].done is None and verdicts[-1].done is False
    assert verdicts[-1].reason.startswith(state)


def test_a_job_unknown_to_all_fails_and_never_waits_forever(job):
    verdicts = [judge(job, {}, unknown_checks=4) for _ in range(4)]
    assert [verdict.done for verdict in verdicts] == [None, None, None, False]
    assert "not known the job in 4 checks" in verdicts[-1].reason


def test_what_slurm_calls_completed_has_time_for_its_result_to_appear(job):
    verdicts = [judge(job, {"5": "COMPLETED"}, unknown_checks=9) for _ in range(9)]
    assert [verdict.done for verdict in verdicts] == [None] * 8 + [False]


def test_a_result_comes_before_anything_that_the_cluster_says(job):
    cloudpickle_dump(("success", 0), job.paths.result_pickle)
    assert judge(job, {"5": "FAILED"}, 1).done is True
    job.paths.result_pickle.write_bytes(b"\x80")  # half of it has arrived
    assert judge(job, {"5": "COMPLETED"}, 2).done is None


def test_a_job_that_outlived_the_death_of_its_program_by_memory_says_so(job):
    cloudpickle_dump(("error", "Traceback\nJobFailed: exit code 1"), job.paths.result_pickle)
    assert [judge(job, {"5": "OUT_OF_MEMORY"}, 1).reason for _ in range(CONFIRMATIONS)][-1].startswith(
        "OUT_OF_MEMORY: JobFailed: exit code 1"
    )


def test_death_by_memory_is_recognised_by_the_words_in_the_log(job):
    job.paths.stdout.write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=5.batch.\n")
    assert [judge(job, {"5": "FAILED"}, 1).reason for _ in range(CONFIRMATIONS)][-1].startswith(
        "OUT_OF_MEMORY (FAILED)"
    )


def test_the_end_of_the_log_leaves_submitit_s_traceback_out(job):
    assert "does not exist" in log_tail(job)
    job.paths.stdout.write_text(
        "x\n" * 100 + "last\nsubmitit ERROR (2030-01-01) - Submitted job triggered\nTraceback\n"
    )
    lines = log_tail(job).splitlines()
    assert lines[-1] == "  last" and len(lines) == 21


@pytest.mark.parametrize(
    "line",
    ["[]", "1", '{"intended": [{}]}', '{"intended": [1]}', '{"submitted": {"a": "1"}}', '{"submitted": 1}'],
)
def test_a_damaged_ledger_is_named(tmp_path, line):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"intended": []}\n' + line + "\n")
    with pytest.raises(WorkflowError, match=r"ledger\.jsonl, line 2: damaged"):
        Ledger(path)
    assert line in path.read_text()


@pytest.mark.parametrize("end", [b'{"inten', b"\xff\xfe", b"[" * 100_000, b'{"x": ' + b"9" * 5000])
def test_a_ledger_may_end_within_a_line(tmp_path, end):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.intend({"a": ["a.txt"]}, "train-1", "slurm")
    with ledger.path.open("ab") as file:
        file.write(end)
    assert list(Ledger(ledger.path).open) == ["a"]


def test_the_ledger_survives_a_controller_that_dies_at_any_line(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.intend({"a": ["a.txt"], "b": ["b.txt", "b.log"]}, "train-1", "slurm")
    ledger.submitted({"a": "7_0", "b": "7_1"})
    ledger.intend({"c": []}, "train-2", "slurm")
    ledger.closed(["a"], "done")
    with ledger.path.open("a") as file:
        file.write('{"closed": ["b"')
    again = Ledger(ledger.path)
    assert again.open["b"].job_id == "7_1" and again.open["b"].outputs == ["b.txt", "b.log"]
    assert set(again.open) == {"b", "c"}
    assert [entry.key for entry in again.unanswered()["train-2"]] == ["c"]
    assert Ledger(ledger.path).open == again.open
    assert len(ledger.path.read_text().splitlines()) == 1
