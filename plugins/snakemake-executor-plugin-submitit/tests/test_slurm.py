"""Slurm when it is busy, silent or half silent: its commands are scripts here."""

import os
from pathlib import Path

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.cluster import ClusterUnavailable
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.slurm import parse_states
from snakemake_executor_plugin_submitit.task import SnakemakeTask

SILENT = "echo Unable to contact slurm controller >&2; exit 1"
REQUEST = Request(nodes=1, gpus="", cpus=1, memory_mb=None, runtime=5)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that replaces a command of Slurm by a script; `calls` gets a line for each call."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "_RETRY_PAUSES_S", (0, 0))

    def write(name: str, script: str) -> None:
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n{script}\n')
        (tools / name).chmod(0o755)

    write("srun", "exit 1")  # submitit checks that it exists
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


def test_squeue_overrules_sacct_about_a_job_that_has_ended(cluster, command):
    command("sacct", "echo '5|NODE_FAIL'; echo '6|RUNNING'; echo '7|COMPLETED'")
    command("squeue", "echo '5|PENDING'")
    assert cluster.states(["5", "6", "7", "8"]) == {"5": "PENDING", "6": "RUNNING", "7": "COMPLETED"}


def test_a_silent_squeue_leaves_the_state_unknown(cluster, command):
    command("sacct", "echo '5|PREEMPTED'")
    command("squeue", SILENT)
    for uncertain in ("5", "6"):
        with pytest.raises(ClusterUnavailable, match="Unable to contact"):
            cluster.states([uncertain])


def test_squeue_is_not_called_for_active_jobs(cluster, command):
    command("sacct", "echo '5|RUNNING'")
    command("squeue", SILENT)
    assert cluster.states(["5"]) == {"5": "RUNNING"}


def test_without_accounting_sacct_is_called_once(cluster, command, tmp_path):
    command("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    command("squeue", "echo '5|RUNNING'")
    for _ in range(3):
        assert cluster.states(["5"]) == {"5": "RUNNING"}
    assert len(calls(tmp_path, "sacct")) == 1


def test_a_silent_scancel_is_reported_after_all_batches_were_tried(cluster, command, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "_IDS_PER_CALL", 1)
    command("scancel", f'test "$2" != 5 || {{ {SILENT}; }}')
    with pytest.raises(ClusterUnavailable, match="Unable to contact"):
        cluster.cancel(["5", "6"])
    assert len(calls(tmp_path, "scancel")) == 2


def test_a_submission_is_repeated_while_the_controller_is_busy(cluster, command, tmp_path):
    busy = "echo sbatch: error: Socket timed out on send/recv operation >&2; exit 1"
    command(
        "sbatch", f"test $(grep -c sbatch {tmp_path}/calls) = 3 || {{ {busy}; }}; echo Submitted batch job 7"
    )
    assert cluster.submit([task(tmp_path), task(tmp_path)], REQUEST, "train-1", "") == ["7_0", "7_1"]
    with pytest.raises(WorkflowError, match="Socket timed out"):
        cluster.submit([task(tmp_path)], REQUEST, "train-2", "")


def test_a_rejection_is_final_and_shown(cluster, command, tmp_path):
    command("sbatch", "echo sbatch: error: invalid partition specified: gpus >&2; exit 1")
    with pytest.raises(WorkflowError, match=r"Slurm rejects the job: .*invalid partition specified: gpus"):
        cluster.submit([task(tmp_path)], REQUEST, "train-1", "")
    assert len(calls(tmp_path, "sbatch")) == 1


def test_a_snakemake_inside_a_job_does_not_pass_the_variables_of_that_job_to_its_own_jobs(
    cluster, command, tmp_path, monkeypatch
):
    for name in ("SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURM_CONF", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "1")
    command("sbatch", f"env > {tmp_path}/environment; echo Submitted batch job 7")
    cluster.submit([task(tmp_path)], REQUEST, "train-1", "")
    passed = {line.split("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert {"SLURM_CONF", "SBATCH_ACCOUNT"} <= passed and not {"SLURM_JOB_ID", "SLURM_MEM_PER_CPU"} & passed
    assert os.environ["SLURM_JOB_ID"] == "1"


def test_lines_of_squeue_and_sacct_are_parsed():
    text = (
        "7_[0,2-3%4]|PENDING\n7_1|RUNNING\n8|CANCELLED by 1000\n8.batch|CANCELLED\n9|\n6_[1,3,...]|PENDING\n"
    )
    assert parse_states(text) == {
        "7_0": "PENDING",
        "7_2": "PENDING",
        "7_3": "PENDING",
        "7_1": "RUNNING",
        "8": "CANCELLED",
        "9": "",
    }
