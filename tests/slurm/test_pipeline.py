"""The project's own workflow through `--profile slurm`: Table 1's DAG, preempted and multi-node trainings."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, wait_until

from m2pt.formats.weight_files import file_digest
from m2pt.formats.weights import load_weights
from m2pt.schema.plan import Plan

CONFIG = "tests/tiny/config.yaml"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
QUICK = ("--seconds-between-status-checks", "2", "--max-status-checks-per-second", "1", "--latency-wait", "5")


def copy_of_the_workflow(folder: Path, *, recipe: str = "") -> Path:
    """A working copy; `recipe` is what the finetuning of ImageNet is to be instead."""
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("workflow", "profiles", "tests/tiny"):
        shutil.copytree(REPOSITORY / name, folder / name)
    (folder / "slurm").symlink_to("profiles/slurm")
    if recipe:
        (folder / "tests/tiny/recipes/imagenet_tune.yaml").write_text(recipe)
    return folder


def start(folder: Path, target: str, *arguments: str) -> "subprocess.Popen[str]":
    command = ["snakemake", target, *arguments, "--configfile", CONFIG]
    with (folder / "controller.log").open("a") as log:
        return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log, text=True)


def finish(folder: Path, process: "subprocess.Popen[str]", timeout_s: float = 400) -> None:
    assert process.wait(timeout=timeout_s) == 0, (folder / "controller.log").read_text()


def job_of(folder: Path, rule: str) -> str:
    """The id of a rule's only job, once it runs."""
    log = folder / "controller.log"
    wait_until(lambda: f"{rule} is job " in log.read_text(), f"submission of {rule}", 120)
    job_id = log.read_text().split(f"{rule} is job ")[1].split()[0]
    wait_until(lambda: state(job_id) == "RUNNING", f"{rule} running")
    return job_id


def state(job_id: str) -> str:
    command = ["squeue", "--noheader", f"--jobs={job_id}", "--states=all", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def restarts(job_id: str) -> int:
    command = ["sacct", "--duplicates", "--allocations", "--noheader", f"--jobs={job_id}", "--format=JobID"]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()) - 1


@pytest.fixture
def run(monkeypatch):
    """Name of the run that needs no pretraining: from scratch, with a random auxiliary."""
    monkeypatch.chdir(REPOSITORY)
    plan = Plan.load(Path(CONFIG))
    found = [
        name
        for name, planned in plan.runs.items()
        if planned.experiment.target_init == "scratch"
        and planned.experiment.auxiliaries == ("random",)
        and planned.experiment.mode == "tune"
        and planned.experiment.dataset == "imagenet"
        and not planned.experiment.is_transfer
    ]
    (name,) = found
    return name


def test_table_1_s_dag(tmp_path):
    folder = copy_of_the_workflow(tmp_path)
    finish(folder, start(folder, "results/table.csv", "--profile", "slurm", *QUICK))
    assert "M2PT-Point" in (folder / "results/table.csv").read_text()
    log = (folder / "controller.log").read_text()
    total = re.search(r"^total +(\d+)$", log, re.MULTILINE)
    assert total is not None and log.count(" of slurm: ") == int(total[1]) > 20


def planned_name(folder: Path, monkeypatch: pytest.MonkeyPatch, run: str) -> str:
    """The run's name in a copy whose recipe differs: names do not depend on recipes."""
    monkeypatch.chdir(folder)
    assert run in Plan.load(Path(CONFIG)).runs
    return run


def test_a_training_that_is_requeued_and_out_of_time_ends_with_the_same_bits(
    tmp_path_factory, monkeypatch, run
):
    recipe = (
        "training: {epochs: 2500, batch_size: 16, lr: 1.0e-3, log_every: 100, checkpoint_every: 500}\n"
        "mix: {mixup: 0.8, cutmix: 1.0, smoothing: 0.1}\n"
    )
    plain, disturbed = (copy_of_the_workflow(tmp_path_factory.mktemp(n), recipe=recipe) for n in ("p", "d"))
    planned_name(plain, monkeypatch, run)
    target = f"results/runs/{run}/seed0/attached.safetensors"
    reference = start(plain, target, "--cores", "1")
    asked = ("--set-resources", "finetune:runtime=1", "--submitit-signal-delay", "15")
    process = start(disturbed, target, "--profile", "slurm", *QUICK, *asked)
    job_id = job_of(disturbed, "finetune")
    training = disturbed / f"results/runs/{run}/seed0"
    wait_until(lambda: (training / "metrics.jsonl").exists(), "the first steps")
    subprocess.run(["scontrol", "requeue", job_id], check=True)
    finish(disturbed, process)
    finish(plain, reference)
    assert restarts(job_id) >= 2  # by hand, and at the time limit
    assert (training / "train.log").read_text().count("resuming after step") >= 2
    expected = plain / f"results/runs/{run}/seed0"
    for name in ("attached.safetensors", "metrics.jsonl"):
        assert file_digest(training / name) == file_digest(expected / name), name


def test_two_nodes_train_together_as_one_process_would_and_are_warned_together(
    tmp_path_factory, monkeypatch, run
):
    recipe = (
        "training: {epochs: 300, batch_size: 8, accumulation: 2, lr: 1.0e-3, log_every: 100}\n"
        "mix: {mixup: 0.8, cutmix: 1.0, smoothing: 0.1}\n"
    )
    one, two = (copy_of_the_workflow(tmp_path_factory.mktemp(n), recipe=recipe) for n in ("one", "two"))
    target = f"results/runs/{run}/seed0/attached.safetensors"
    reference = start(one, target, "--cores", "1")
    asked = ("--set-resources", "finetune:nodes=2", "finetune:gpus=1")
    process = start(two, target, "--profile", "slurm", *QUICK, *asked)
    job_id = job_of(two, "finetune")
    training = two / f"results/runs/{run}/seed0"
    wait_until(lambda: (training / "metrics.jsonl").exists(), "the first steps")
    time.sleep(1)
    subprocess.run(["scancel", "--batch", "--signal=USR2", job_id], check=True)
    finish(two, process)
    finish(one, reference)
    assert restarts(job_id) == 1 and "resuming after step" in (training / "train.log").read_text()
    assert "2 processes" in (training / "train.log").read_text()
    (together, _), (alone, _) = (load_weights(folder / target) for folder in (two, one))
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-4, msg=name)
