"""The project's own workflow through `--profile slurm`: Table 1's DAG, preempted and multi-node trainings."""

import re
import shutil
import signal
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
import yaml
from multimodal_config import write_config
from slurm_workflow import ALL_GPU_NODES, QUICK, Workflow, slurm, slurm_takes, wait_until

from m2pt.formats.weight_files import file_digest
from m2pt.formats.weights import load_weights
from m2pt.plan.plan import Plan
from snakemake_executor_plugin_submitit.processes import handles_signal

REPOSITORY = Path(__file__).parents[2]
CONFIG = "tests/tiny/config.yaml"
ON_SLURM = ("--profile", "slurm", *QUICK)
MIX = "mix: {mixup: 0.8, cutmix: 1.0, smoothing: 0.1}\n"


@pytest.fixture
def copy(tmp_path_factory, request):
    """Makes working copies; `recipe` is what the finetuning of ImageNet is to be instead."""

    def make(name: str, *options: str, recipe: str = "", config: str | Path = CONFIG) -> Workflow:
        folder = tmp_path_factory.mktemp(name)
        for file in ("Snakefile", "environment.yml"):
            shutil.copy(REPOSITORY / file, folder)
        for part in ("workflow", "profiles", "tests/tiny"):
            shutil.copytree(REPOSITORY / part, folder / part)
        (folder / "slurm").symlink_to("profiles/slurm")
        if recipe:
            (folder / "tests/tiny/recipes/imagenet_tune.yaml").write_text(recipe)
        made = Workflow(folder, *options, "--configfile", str(config))
        request.addfinalizer(made.end)
        return made

    return make


@pytest.fixture
def training() -> Path:
    """Folder of the training that needs no pretraining: from scratch, with a random auxiliary."""
    plan = Plan.load(Path(CONFIG))
    found = [
        name
        for name, run in plan.runs.items()
        if run.experiment.target_init == "scratch"
        and run.experiment.auxiliaries == ("random",)
        and run.experiment.mode == "tune"
        and run.experiment.dataset == "imagenet"
        and run.command == "finetune"
    ]
    (name,) = found
    return plan.run_directory(name, 0)


def restarts(job_id: str) -> int:
    """Return how often Slurm has started a job again, which it tells for some minutes after the job's end."""
    (found,) = re.findall(r"\bRestarts=(\d+)", slurm("scontrol", "show", "job", job_id))
    return int(found)


def minutes_run(job_id: str) -> int:
    """Return the full minutes since a job's last start."""
    hours, minutes = re.findall(r"\bRunTime=(\d+):(\d+):", slurm("scontrol", "show", "job", job_id))[0]
    return 60 * int(hours) + int(minutes)


def training_process(workflow: Workflow) -> psutil.Process:
    """Return the process that trains in a working copy."""
    (found,) = [
        process
        for process in psutil.process_iter(["cwd"])
        if process.info["cwd"] == str(workflow.folder) and handles_signal(process.pid, signal.SIGUSR1)
    ]
    return found


def is_warned(process: psutil.Process) -> bool:
    """Return whether a process has been sent SIGUSR1 that it has not handled yet, since it is stopped."""
    (pending,) = re.findall(
        r"^ShdPnd:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE
    )
    return bool(int(pending, 16) >> (signal.SIGUSR1 - 1) & 1)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_table_1_s_dag(copy):
    """Of the rows M2PT-Point alone, which has a job of each kind and transfers."""
    workflow = copy("table", *ON_SLURM)
    file = workflow.folder / "tests/tiny/table.yaml"
    table = yaml.safe_load(file.read_text())
    (row,) = [row for row in table["rows"] if row["method"] == "M2PT-Point"]
    file.write_text(
        yaml.safe_dump(table | {"rows": [row | {"columns": ["tune_acc", "ap_box"], "baseline": None}]})
    )
    target = "results/table.csv"
    log = workflow.run(target, "--config", "figures=[]", "claims=null")
    assert "M2PT-Point" in (workflow.folder / target).read_text()
    total = re.search(r"^total +(\d+)$", log, re.MULTILINE)
    assert total is not None and log.count(": slurm job ") == int(total[1]) >= 10


def test_joint_trainings(copy, tmp_path):
    config = write_config(tmp_path / "of AGM", {"Joint": {"method": "joint"}, "AGM": {"method": "agm"}})
    workflow = copy("joint", *ON_SLURM, config=config)
    log = workflow.run(str(config.parent / "results/table.csv"))
    results = pd.read_csv(config.parent / "results/table.csv")
    assert set(results["method"]) == {"Joint", "AGM"}
    assert log.count("multimodal: slurm job ") == 2


def test_a_training_that_is_requeued_and_out_of_time_ends_with_the_same_bits(copy, training):
    """Its process is stopped until Slurm ends or warns it: how fast it trains does not matter."""
    recipe = "training: {epochs: 200, batch_size: 16, lr: 1.0e-3, log_every: 1, checkpoint_every: 20}\n"
    plain = copy("plain", "--cores", "1", recipe=recipe + MIX)
    disturbed = copy("disturbed", *ON_SLURM, "--submitit-signal-delay", "15", recipe=recipe + MIX)
    target = str(training / "attached.safetensors")
    plain.start(target)
    disturbed.start(target)
    job_id = disturbed.started("finetune")
    log = disturbed.folder / training / "train.log"
    wait_until(lambda: "step 30/" in read(log), "the first steps")
    training_process(disturbed).suspend()
    slurm("scontrol", "requeue", job_id)
    wait_until(lambda: read(log).count("resuming from step") == 1, "the second start")
    process = training_process(disturbed)
    process.suspend()
    slurm("scontrol", "update", f"JobId={job_id}", f"TimeLimit={minutes_run(job_id) + 2}")
    wait_until(lambda: is_warned(process), "the warning before the time limit")
    process.resume()
    wait_until(lambda: read(log).count("resuming from step") == 2, "the third start")
    # to be done sooner; where Slurm refuses it, the job is at worst out of time more often
    slurm_takes("scontrol", "update", f"JobId={job_id}", "TimeLimit=60")
    assert restarts(job_id) >= 2
    disturbed.finish()
    plain.finish()
    for name in ("attached.safetensors", "metrics.jsonl"):
        paths = [workflow.folder / training / name for workflow in (disturbed, plain)]
        assert file_digest(paths[0]) == file_digest(paths[1]), name


@ALL_GPU_NODES
def test_two_nodes_of_two_gpus_train_together_as_one_process_would_and_are_warned_together(copy, training):
    recipe = "training: {epochs: 60, batch_size: 4, accumulation: 4, lr: 1.0e-3, log_every: 20}\n"
    one = copy("one", "--cores", "1", recipe=recipe + MIX)
    two = copy("two", *ON_SLURM, recipe=recipe + MIX)
    target = str(training / "attached.safetensors")
    one.start(target)
    # on the command line they stand in the place of all that the profile sets
    requested = ("nodes=2", "gpus=2", "cpus_per_task=2", "slurm_partition=gpu")
    two.start(target, "--set-resources", *(f"finetune:{resource}" for resource in requested))
    job_id = two.started("finetune")
    log = two.folder / training / "train.log"
    wait_until(lambda: "step 20/" in read(log), "the first steps")
    slurm("scancel", "--batch", "--signal=USR2", job_id)
    two.finish()
    assert restarts(job_id) >= 1
    one.finish()
    assert "resuming from step" in read(log) and read(log).count("4 processes on cpu") >= 2
    (together, _), (alone, _) = (load_weights(each.folder / target) for each in (two, one))
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        first, second = together[name], value
        if name.endswith("attn.qkv.bias"):
            # the gradient of the keys' bias is rounding alone, which Adam scales up
            first, second = (torch.cat([bias.chunk(3)[0], bias.chunk(3)[2]]) for bias in (first, second))
        torch.testing.assert_close(first, second, rtol=1e-3, atol=5e-4)
