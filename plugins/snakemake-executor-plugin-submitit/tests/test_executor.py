"""What the executor does about a cluster that is silent, and about jobs of an earlier Snakemake."""

import logging
from pathlib import Path
from unittest.mock import Mock

import pytest
from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import cloudpickle_dump

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit import executor as executor_module
from snakemake_executor_plugin_submitit.cluster import ClusterUnavailable
from snakemake_executor_plugin_submitit.executor import Executor
from snakemake_executor_plugin_submitit.job_state import SubmittedJob
from snakemake_executor_plugin_submitit.ledger import Ledger


class FakeCluster:
    """A cluster whose answers the test sets."""

    name = "slurm"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: list[str] | None = []  # None: no answer
        self.running: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.ignores_cancel = False

    def states(self, job_ids):
        return {job_id: self.running[job_id] for job_id in job_ids if job_id in self.running}

    def find(self, name, since):
        if self.found is None:
            raise ClusterUnavailable("no answer")
        return self.found

    def cancel(self, job_ids):
        if self.ignores_cancel:
            raise ClusterUnavailable("no answer")
        self.cancelled += job_ids


@pytest.fixture
def executor(tmp_path):
    """An executor that is past its initialization."""
    made = object.__new__(Executor)
    made._cluster = FakeCluster(tmp_path)
    made._ledger = Ledger(tmp_path / "ledger.jsonl")
    made._submitted = {}
    made._earlier = {}
    made.logger = logging.getLogger("executor")
    return made


def submit(executor, ids: dict[str, str], *, with_ids: bool = True) -> None:
    executor._ledger.intend({key: [f"{key}.txt"] for key in ids}, "train-1", "slurm")
    for job_id in ids.values():
        SubmittedJob(job_id, executor._cluster.folder).paths.submitted_pickle.touch()
    if with_ids:
        executor._ledger.submitted(ids)


def test_ctrl_c_cancels_a_submission_whose_ids_are_not_yet_recorded(executor):
    submit(executor, {"a": "7_0", "b": "7_1"}, with_ids=False)
    executor._cluster.found = ["7_0", "7_1"]
    executor.cancel_jobs([])
    assert executor._cluster.cancelled == ["7_0", "7_1"] and not executor._ledger.open


def test_ctrl_c_cancels_known_jobs_even_if_the_cluster_does_not_answer(executor, caplog):
    submit(executor, {"a": "7"})
    executor._ledger.intend({"b": []}, "train-2", "slurm")
    executor._cluster.found = None
    executor.cancel_jobs([])
    assert executor._cluster.cancelled == ["7"] and set(executor._ledger.open) == {"b"}
    assert "does not say whether the last submission arrived" in caplog.text


def test_jobs_that_could_not_be_cancelled_stay_in_the_ledger_and_are_named(executor, caplog):
    submit(executor, {"a": "7"})
    executor._cluster.ignores_cancel = True
    executor.cancel_jobs([])
    assert "did not cancel all of 7" in caplog.text and set(executor._ledger.open) == {"a"}


@pytest.mark.parametrize("half", ["an array without one of its tasks", "a job without its pickle"])
def test_an_incomplete_submission_is_cancelled(executor, half):
    submit(executor, {"a": "7_0", "b": "7_1"}, with_ids=False)
    executor._cluster.found = ["7_0"] if "array" in half else ["7_0", "7_1"]
    SubmittedJob("7_1", executor._cluster.folder).paths.submitted_pickle.unlink()
    assert executor._find_earlier_jobs() == {}
    assert executor._cluster.cancelled == executor._cluster.found and not executor._ledger.open


def test_active_jobs_of_an_earlier_snakemake_are_found_and_ended_ones_closed(executor):
    submit(executor, {"a": "7", "b": "8", "c": "9"})
    executor._cluster.running = {"7": "RUNNING", "8": "COMPLETED"}
    assert {key: entry.job_id for key, entry in executor._find_earlier_jobs().items()} == {"a": "7"}
    assert set(executor._ledger.open) == {"a"}


def test_a_new_snakemake_does_not_start_without_an_answer(executor):
    executor._ledger.intend({"a": []}, "train-1", "slurm")
    executor._cluster.found = None
    with pytest.raises(WorkflowError, match="try again later"):
        executor._find_earlier_jobs()
    assert set(executor._ledger.open) == {"a"}


class Job:
    """The part of Snakemake's job that the executor uses."""

    name = "train"
    input = ()
    shellcmd = "m2pt finetune"

    def is_group(self) -> bool:
        return False

    def __init__(self, *output: str) -> None:
        self.output = output


def key(name: str) -> str:
    return executor_module._key(Job(f"{name}.txt"))


def test_a_job_that_ended_while_snakemake_started_is_submitted_again(executor):
    """Snakemake has already deleted its outputs."""
    submit(executor, {key("a"): "7"})
    executor._earlier = dict(executor._ledger.open)
    cloudpickle_dump(("success", 0), SubmittedJob("7", executor._cluster.folder).paths.result_pickle)
    assert not executor._adopt(Job("a.txt"))
    assert not executor._ledger.open and not executor._earlier and not executor._cluster.cancelled


def test_jobs_that_make_the_same_files_are_cancelled_and_one_that_does_not_end_fails_its_successor(
    executor, monkeypatch
):
    submit(executor, {"a": "7", "b": "8", "c": "9"})
    executor._earlier = dict(executor._ledger.open)
    first, second, third = Job("b.txt", "d.txt"), Job("a.txt"), Job("e.txt")
    monkeypatch.setattr(executor_module, "_CANCEL_TIMEOUT_S", 0.2)
    monkeypatch.setattr(executor_module, "_CANCEL_POLL_S", 0.1)
    failed = []
    executor._fail = lambda job, message: failed.append((job, message))
    executor._cluster.running = {"7": "COMPLETING", "9": "RUNNING"}
    assert executor._cancel_predecessors([first, second, third]) == [first, third]
    assert sorted(executor._cluster.cancelled) == ["7", "8"]
    assert failed == [(second, "train: job 7 of an earlier run still writes its files")]
    assert set(executor._earlier) == set(executor._ledger.open) == {"a", "c"}
    executor._cluster.running = {}
    assert executor._cancel_predecessors([second]) == [second]  # when Snakemake retries


def test_a_snakemake_that_cannot_start_does_not_keep_the_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = object.__new__(Executor)
    made.workflow = Mock(executor_settings=ExecutorSettings(cluster="local"))
    made.workflow.config_settings.config_args = None
    made.logger = logging.getLogger("executor")
    monkeypatch.setattr(Executor, "_find_earlier_jobs", Mock(side_effect=WorkflowError("try again later")))
    for _ in range(2):
        with pytest.raises(WorkflowError, match="try again later"):
            made.__post_init__()
