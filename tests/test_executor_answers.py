"""What the executor makes of a Slurm that is busy, silent, or half silent: its commands are scripts here."""

import logging
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import cloudpickle_dump

from snakemake_executor_plugin_submitit import ExecutorSettings, slurm
from snakemake_executor_plugin_submitit import executor as executor_module
from snakemake_executor_plugin_submitit.cluster import NoAnswer
from snakemake_executor_plugin_submitit.executor import Executor
from snakemake_executor_plugin_submitit.judgement import Submitted
from snakemake_executor_plugin_submitit.ledger import Ledger
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.task import SnakemakeTask

SILENT = "echo Unable to contact slurm controller >&2; exit 1"
REQUEST = Request(nodes=1, gpus="", cpus=1, memory_mb=None, runtime=5)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Puts a script in the place of a command of Slurm; each call of one leaves a line in `calls`."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "_PATIENCE_S", (0, 0))

    def write(name: str, script: str) -> None:
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n{script}\n')
        (tools / name).chmod(0o755)

    write("srun", "exit 1")  # submitit looks for it
    return write


@pytest.fixture
def cluster(tmp_path, command):
    folder = tmp_path / "jobs"
    folder.mkdir()
    return slurm.Slurm(folder, max_restarts=3)


def calls(folder: Path, name: str) -> list[str]:
    lines = (folder / "calls").read_text().splitlines()
    return [line for line in lines if line.startswith(name)]


def task(folder: Path) -> SnakemakeTask:
    return SnakemakeTask(
        "true", folder / "marker", warning_signal=10, warning_s=30, limit_s=300, max_restarts=3
    )


def test_squeue_has_the_last_word_on_a_job_that_sacct_calls_ended(cluster, command):
    command("sacct", "echo '5|NODE_FAIL'; echo '6|RUNNING'; echo '7|COMPLETED'")
    command("squeue", "echo '5|PENDING'")
    assert cluster.states(["5", "6", "7", "8"]) == {"5": "PENDING", "6": "RUNNING", "7": "COMPLETED"}


def test_silence_of_squeue_is_no_knowledge(cluster, command):
    command("sacct", "echo '5|PREEMPTED'")
    command("squeue", SILENT)
    for doubtful in ("5", "6"):
        with pytest.raises(NoAnswer, match="Unable to contact"):
            cluster.states([doubtful])


def test_squeue_is_not_asked_of_jobs_that_are_alive(cluster, command):
    command("sacct", "echo '5|RUNNING'")
    command("squeue", SILENT)
    assert cluster.states(["5"]) == {"5": "RUNNING"}


def test_without_accounting_sacct_is_asked_once(cluster, command, tmp_path):
    command("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    command("squeue", "echo '5|RUNNING'")
    for _ in range(3):
        assert cluster.states(["5"]) == {"5": "RUNNING"}
    assert len(calls(tmp_path, "sacct")) == 1


def test_a_silent_scancel_is_told_after_all_were_tried(cluster, command, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "_IDS_PER_CALL", 1)
    command("scancel", f'test "$2" != 5 || {{ {SILENT}; }}')
    with pytest.raises(NoAnswer, match="Unable to contact"):
        cluster.cancel(["5", "6"])
    assert len(calls(tmp_path, "scancel")) == 2


def test_a_busy_controller_is_asked_again(cluster, command, tmp_path):
    busy = "echo sbatch: error: Socket timed out on send/recv operation >&2; exit 1"
    command(
        "sbatch", f"test $(grep -c sbatch {tmp_path}/calls) = 3 || {{ {busy}; }}; echo Submitted batch job 7"
    )
    assert cluster.submit([task(tmp_path), task(tmp_path)], REQUEST, "train-1", "") == ["7_0", "7_1"]
    with pytest.raises(WorkflowError, match="Socket timed out"):
        cluster.submit([task(tmp_path)], REQUEST, "train-2", "")


def test_a_refusal_is_final_and_shown(cluster, command, tmp_path):
    command("sbatch", "echo sbatch: error: invalid partition specified: gpus >&2; exit 1")
    with pytest.raises(WorkflowError, match=r"Slurm refuses the job: .*invalid partition specified: gpus"):
        cluster.submit([task(tmp_path)], REQUEST, "train-1", "")
    assert len(calls(tmp_path, "sbatch")) == 1


def test_a_controller_inside_a_job_does_not_hand_that_job_s_variables_on(
    cluster, command, tmp_path, monkeypatch
):
    for name in ("SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURM_CONF", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "1")
    command("sbatch", f"env > {tmp_path}/environment; echo Submitted batch job 7")
    cluster.submit([task(tmp_path)], REQUEST, "train-1", "")
    handed = {line.split("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert {"SLURM_CONF", "SBATCH_ACCOUNT"} <= handed and not {"SLURM_JOB_ID", "SLURM_MEM_PER_CPU"} & handed
    assert os.environ["SLURM_JOB_ID"] == "1"


class Answers:
    """A cluster that says what the test has told it to say."""

    name = "slurm"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: list[str] | None = []
        self.running: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.deaf = False

    def states(self, job_ids):
        return {job_id: self.running[job_id] for job_id in job_ids if job_id in self.running}

    def find(self, name, since):
        if self.found is None:
            raise NoAnswer("silence")
        return self.found

    def cancel(self, job_ids):
        if self.deaf:
            raise NoAnswer("silence")
        self.cancelled += job_ids


@pytest.fixture
def executor(tmp_path):
    """An executor in the middle of its work."""
    made = object.__new__(Executor)
    made._cluster = Answers(tmp_path)
    made._ledger = Ledger(tmp_path / "ledger.jsonl")
    made._submitted = {}
    made._found_again = {}
    made.logger = logging.getLogger("executor")
    return made


def submit(executor, ids: dict[str, str], *, answered: bool = True) -> None:
    executor._ledger.intend({key: [f"{key}.txt"] for key in ids}, "train-1", "slurm")
    for job_id in ids.values():
        Submitted(job_id, executor._cluster.folder).paths.submitted_pickle.touch()
    if answered:
        executor._ledger.submitted(ids)


def test_ctrl_c_reaches_a_submission_whose_ids_are_still_under_way(executor):
    submit(executor, {"a": "7_0", "b": "7_1"}, answered=False)
    executor._cluster.found = ["7_0", "7_1"]
    executor.cancel_jobs([])
    assert executor._cluster.cancelled == ["7_0", "7_1"] and not executor._ledger.open


def test_a_silent_cluster_keeps_ctrl_c_from_nothing_that_is_known(executor, caplog):
    submit(executor, {"a": "7"})
    executor._ledger.intend({"b": []}, "train-2", "slurm")
    executor._cluster.found = None
    executor.cancel_jobs([])
    assert executor._cluster.cancelled == ["7"] and set(executor._ledger.open) == {"b"}
    assert "does not say whether the last submission arrived" in caplog.text


def test_what_could_not_be_cancelled_stays_in_the_ledger_and_is_named(executor, caplog):
    submit(executor, {"a": "7"})
    executor._cluster.deaf = True
    executor.cancel_jobs([])
    assert "did not cancel all of 7" in caplog.text and set(executor._ledger.open) == {"a"}


@pytest.mark.parametrize("half", ["an array that lost a task", "a job that has nothing to do yet"])
def test_half_a_submission_is_cancelled_and_made_again(executor, half):
    submit(executor, {"a": "7_0", "b": "7_1"}, answered=False)
    executor._cluster.found = ["7_0"] if "array" in half else ["7_0", "7_1"]
    Submitted("7_1", executor._cluster.folder).paths.submitted_pickle.unlink()
    assert executor._look_for_jobs() == {}
    assert executor._cluster.cancelled == executor._cluster.found and not executor._ledger.open


def test_a_new_controller_looks_for_what_is_alive_and_forgets_what_has_ended(executor):
    submit(executor, {"a": "7", "b": "8", "c": "9"})
    executor._cluster.running = {"7": "RUNNING", "8": "COMPLETED"}
    assert {key: entry.job_id for key, entry in executor._look_for_jobs().items()} == {"a": "7"}
    assert set(executor._ledger.open) == {"a"}


def test_a_new_controller_waits_for_an_answer(executor):
    executor._ledger.intend({"a": []}, "train-1", "slurm")
    executor._cluster.found = None
    with pytest.raises(WorkflowError, match="try again later"):
        executor._look_for_jobs()
    assert set(executor._ledger.open) == {"a"}


class Job:
    """What the executor asks of Snakemake's job."""

    name = "train"
    input = ()
    shellcmd = "m2pt finetune"

    def is_group(self) -> bool:
        return False

    def __init__(self, *output: str) -> None:
        self.output = output


def key(name: str) -> str:
    return executor_module._key(Job(f"{name}.txt"))


def test_a_job_that_ended_while_snakemake_began_is_submitted_again(executor):
    """Snakemake has deleted what it made, before it was asked for."""
    submit(executor, {key("a"): "7"})
    executor._found_again = dict(executor._ledger.open)
    cloudpickle_dump(("success", 0), Submitted("7", executor._cluster.folder).paths.result_pickle)
    assert not executor._take_up(Job("a.txt"))
    assert not executor._ledger.open and not executor._found_again and not executor._cluster.cancelled


def test_only_what_makes_the_same_files_makes_room_and_what_waits_for_one_that_stays_is_refused(
    executor, monkeypatch
):
    submit(executor, {"a": "7", "b": "8", "c": "9"})
    executor._found_again = dict(executor._ledger.open)
    first, second, third = Job("b.txt", "d.txt"), Job("a.txt"), Job("e.txt")
    monkeypatch.setattr(executor_module, "_ENDING_S", 0.2)
    monkeypatch.setattr(executor_module, "_ENDING_POLL_S", 0.1)
    refused = []
    executor._refuse = lambda job, message: refused.append((job, message))
    executor._cluster.running = {"7": "COMPLETING", "9": "RUNNING"}
    assert executor._make_room([first, second, third]) == [first, third]
    assert sorted(executor._cluster.cancelled) == ["7", "8"]
    assert refused == [(second, "train: job 7 of an earlier run still makes its files")]
    assert set(executor._found_again) == set(executor._ledger.open) == {"a", "c"}
    executor._cluster.running = {}
    assert executor._make_room([second]) == [second]  # Snakemake's next try


def test_a_controller_that_cannot_begin_holds_no_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = object.__new__(Executor)
    made.workflow = Mock(executor_settings=ExecutorSettings(cluster="local"))
    made.workflow.config_settings.config_args = None
    made.logger = logging.getLogger("executor")
    monkeypatch.setattr(Executor, "_look_for_jobs", Mock(side_effect=WorkflowError("try again later")))
    for _ in range(2):
        with pytest.raises(WorkflowError, match="try again later"):
            made.__post_init__()
