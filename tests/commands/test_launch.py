"""`m2pt launch`: what it starts, what it refuses, and whole commands in two processes."""

import argparse
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import yaml

from m2pt.commands import launch, main
from m2pt.formats.documents import read_yaml
from m2pt.formats.weight_files import file_digest
from m2pt.ops.launch import rendezvous
from m2pt.plan.plan import Plan
from m2pt.training import signals

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "tests/tiny/config.yaml"
SLURM = {"SLURM_JOB_ID": "1234", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "9"}

SCONTROL = """#!/bin/sh
[ "$*" = "show hostnames here[1-2]" ] && printf 'here1\\nhere2\\n'
"""
SRUN = """#!/usr/bin/env python3
'''Stands for srun on one node: gives tasks Slurm's variables, ends with their highest exit code.'''
import os, subprocess, sys
options, command = sys.argv[1:9], sys.argv[10:]
given = dict(zip(options[::2], options[1::2]))
assert sys.argv[9] == "--kill-on-bad-exit=1" and given["--nodes"] == "1", sys.argv
shared = {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": given["--ntasks"], "SLURM_STEP_ID": "3"}
shared["SLURM_STEP_TASKS_PER_NODE"] = given["--ntasks-per-node"]
tasks = [
    subprocess.Popen(command, env=os.environ | shared | {"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)})
    for n in range(int(given["--ntasks"]))
]
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def started(monkeypatch):
    """The commands that would have replaced this process; the environment is no Slurm job's."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    commands = []
    monkeypatch.setattr(launch, "replace_process", commands.append)
    return commands


def test_one_process_is_the_command_itself(started, capsys):
    assert main(["launch", "finetune", "nothing", "--config", str(CONFIG)]) == 2
    assert "m2pt finetune: error:" in capsys.readouterr().err and not started


def test_on_one_machine_torchrun_starts_the_processes(started):
    main(["launch", "--processes", "3", "pretrain", "image", "--seed", "1", "--config", "x.yaml"])
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    words = ["pretrain", "image", "--seed", "1", "--config", "x.yaml"]
    assert started == [[*start, "-m", "m2pt", "launch", "--task", *words]]


@pytest.mark.parametrize(
    ("variables", "nodes", "cpus", "extra"),
    [
        ({}, 2, 2, []),
        ({}, 1, 2, []),
        ({"SLURM_CPUS_PER_TASK": "2"}, 2, 1, []),
        ({"SLURM_NTASKS_PER_NODE": "4"}, 2, 9, []),
        ({"SLURM_STEP_ID": "0"}, 2, 2, ["--overlap", "--mem", "0"]),
    ],
)
def test_in_a_slurm_allocation_srun_does(started, monkeypatch, variables, nodes, cpus, extra):
    for name, value in (SLURM | variables).items():
        monkeypatch.setenv(name, value)
    main(["launch", "--nodes", str(nodes), "--processes", "4", "transfer", "run", "--seed", "2"])
    words = ["srun", "--nodes", str(nodes), "--ntasks", str(4 * nodes), "--ntasks-per-node", "4"]
    words += ["--cpus-per-task", str(cpus), "--kill-on-bad-exit=1", *extra]
    words += [sys.executable, "-m", "m2pt", "launch", "--task", "transfer", "run", "--seed", "2"]
    assert started == [words]


@pytest.mark.parametrize(
    ("options", "slurm", "message"),
    [
        (["--nodes", "2"], False, "not inside a Slurm allocation"),
        (["--nodes", "3"], True, "--nodes 3: Slurm job 1234 has 2"),
        (["--processes", "0"], False, "--processes 0: must be an integer >= 1"),
        (["--nodes", "-1"], True, "--nodes -1: must be an integer >= 1"),
        (
            ["--processes", "2"],
            True,
            "2 processes per node need 2 CPUs, but Slurm allocated 1; raise the rule's",
        ),
    ],
)
def test_numbers_that_cannot_be_are_refused(started, monkeypatch, capsys, options, slurm, message):
    for name, value in (SLURM | {"SLURM_CPUS_ON_NODE": "1"}).items() if slurm else ():
        monkeypatch.setenv(name, value)
    assert main(["launch", *options, "finetune", "run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("m2pt launch: error:") and message in error and not started


def test_only_commands_that_several_processes_can_do_are_taken(started, capsys):
    with pytest.raises(SystemExit):
        main(["launch", "--processes", "2", "tabulate", "table"])
    assert "invalid choice: 'tabulate'" in capsys.readouterr().err


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755 | stat.S_IXUSR)


def test_a_task_finds_the_others_by_slurms_variables(tmp_path, monkeypatch):
    program(tmp_path, "scontrol", SCONTROL)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    task = {"SLURM_STEP_NODELIST": "here[1-2]", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_NTASKS": "8"}
    task |= {"SLURM_JOB_ID": "123456", "SLURM_STEP_ID": "0", "SLURM_PROCID": "6", "SLURM_LOCALID": "2"}
    found = rendezvous(task)
    assert found == {
        "MASTER_ADDR": "here1",
        "MASTER_PORT": "13456",
        "WORLD_SIZE": "8",
        "RANK": "6",
        "LOCAL_RANK": "2",
        "LOCAL_WORLD_SIZE": "4",
    }
    steps = [{"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(n)} for job in range(7000, 7010) for n in (0, 1)]
    ports = [int(rendezvous(task | step)["MASTER_PORT"]) for step in steps]
    assert len(set(ports)) == len(steps) and min(ports) >= 10_000 and max(ports) < 32_768


def test_a_process_that_srun_has_not_started_is_told_so(monkeypatch, capsys):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert main(["launch", "--task", "finetune", "run"]) == 1
    assert "SLURM_JOB_ID is not set: --task is only for tasks of srun or torchrun" in capsys.readouterr().err


# ---- whole commands ---------------------------------------------------------------------------------------


class Commands:
    """A config in which a finetuning of 60 epochs, 180 steps, can be started; its inputs are made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / "bin"
        recipe = read_yaml(REPOSITORY / "tests/tiny/recipes/imagenet_tune.yaml")
        recipe["training"]["epochs"] = 60
        (folder / "tune.yaml").write_text(yaml.safe_dump(recipe))
        config = read_yaml(CONFIG)
        config["finetune"]["imagenet"]["scratch_tune"] = str(folder / "tune.yaml")
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        self.programs.mkdir()
        program(self.programs, "srun", SRUN)
        program(self.programs, "scontrol", "#!/bin/sh\necho $3\n")
        plan = Plan.load(folder / "config.yaml")
        self.run = next(name for name in plan.runs if name.startswith("imagenet-tune-from-scratch-random"))
        self.transferred = next(name for name in plan.runs if name.startswith("ade20k"))
        assert main(["data", "build", "imagenet", *self.options("shared")]) == 0
        assert main(["import", "random", *self.options("shared")]) == 0

    def options(self, results: str) -> list[str]:
        return ["--config", str(self.folder / "config.yaml"), "--set", f"results={self.folder / results}"]

    def results(self, name: str) -> Path:
        """The run's folder below results that share the inputs."""
        results = self.folder / name
        if not results.exists():
            results.mkdir()
            for part in ("data", "encoders"):
                (results / part).symlink_to(self.folder / "shared" / part)
        return results / "runs" / self.run / "seed0"

    def start(self, results: str, command: str, *, slurm: bool = False) -> subprocess.Popen[str]:
        """Start the command in two processes."""
        self.results(results)
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        environment = {k: v for k, v in environment.items() if not k.startswith("SLURM_")}
        environment["REQUEUE_MARKER"] = str(self.folder / results / "requeue" / "marker")
        if slurm:
            environment |= {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "1"}
            environment["PATH"] = f"{self.programs}:{environment['PATH']}"
        words = [sys.executable, "-m", "m2pt", "launch", "--processes", "2", command, self.run]
        return subprocess.Popen(
            [*words, *self.options(results)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, errors = process.communicate(timeout=600)
    return process.returncode, output + errors


def task(process: subprocess.Popen[str], rank: str) -> int:
    """Process id of a rank."""
    for child in psutil.Process(process.pid).children(recursive=True):
        if child.environ().get("RANK") == rank and "finetune" in child.cmdline():
            return child.pid
    raise AssertionError(f"no process of rank {rank}")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("launch"))


@pytest.fixture(scope="module")
def undisturbed(commands):
    """Folder of a run that two processes trained and evaluated; report and log of `command_processes.py`."""
    run, log = commands.results("undisturbed"), commands.folder / "undisturbed.log"
    command = [sys.executable, REPOSITORY / "tests/helpers/command_processes.py", log, run, commands.run]
    command += [commands.transferred, *commands.options("undisturbed")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + log.read_text()
    return run, json.loads(done.stdout.splitlines()[-1]), log.read_text()


def test_a_stopped_training_goes_on_with_the_same_bits(commands, undisturbed):
    """SIGUSR1 to torchrun, which passes it on: both processes save and end. As in Slurm it goes on."""
    run = commands.results("stopped")
    marker = commands.folder / "stopped" / "requeue" / "marker"
    process = commands.start("stopped", "finetune")
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") > 2):
        time.sleep(0.002)
    process.send_signal(signal.SIGUSR1)
    code, output = finished(process)
    assert code == 1 and "stopped by SIGUSR1" in output, output  # torchrun's own code
    stopped = json.loads((run / "interrupted.json").read_text())
    assert stopped["exit_code"] == 75 and 3 <= stopped["step"] < 180
    assert marker.exists() and not (run / "attached.safetensors").exists()
    marker.unlink()
    code, output = finished(commands.start("stopped", "finetune", slurm=True))
    assert code == 0, output
    assert f"resuming from step {stopped['step']} of 180" in output and not marker.exists()
    assert "destroy_process_group" not in output and "Traceback" not in output
    assert not (run / "interrupted.json").exists()
    assert json.loads((run / "run.json").read_text())["provenance"]["processes"] == 2
    for name in ("attached.safetensors", "metrics.jsonl"):
        assert file_digest(run / name) == file_digest(undisturbed[0] / name)


def test_a_warning_while_the_processes_still_import_is_no_failure(commands):
    process = commands.start("early", "finetune")
    while process.poll() is None and not held_back(process):
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    _, output = finished(process)
    assert (commands.folder / "early" / "requeue" / "marker").exists(), output
    run = commands.results("early")
    assert (run / "interrupted.json").exists() and not (run / "failed.json").exists(), output
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.parametrize("failure", [2, OSError("item 7 cannot be read")], ids=str)
def test_the_others_learn_of_a_process_that_fails_and_ask_for_nothing(tmp_path, monkeypatch, failure):
    marker = tmp_path / "marker"
    monkeypatch.setenv("REQUEUE_MARKER", str(marker))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(signals, "block_stop_signals", lambda: None)
    monkeypatch.setattr("m2pt.commands.main", Mock(side_effect=[failure]))
    task = argparse.Namespace(task=True, command_="finetune", arguments=[])
    with suppress(OSError):
        assert launch.run(task) == 2
    with pytest.raises(signals.Interrupted), signals.exit_on_stop_signal(tmp_path):
        signal.raise_signal(signal.SIGTERM)  # to the rest, from what started them
    assert not marker.exists() and not (tmp_path / "interrupted.json").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not signals.another_process_failed()  # a single process has no others
    monkeypatch.setenv("WORLD_SIZE", "2")
    signals.clear_failure()
    signals.request_requeue()
    signals.report_failure()
    assert marker.exists()
    assert not signals.another_process_failed()  # a consequence of the process that was stopped


def held_back(process: subprocess.Popen[str]) -> bool:
    """Whether both ranks are there and block SIGUSR1."""
    blocked = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error, OSError):
            if "--task" in child.cmdline():
                status = Path(f"/proc/{child.pid}/status").read_text()
                mask = int(re.search(r"SigBlk:\s+(\w+)", status)[1], 16)
                blocked.append(mask >> (signal.SIGUSR1 - 1) & 1)
    return blocked == [1, 1]


def test_two_processes_evaluate_as_one(undisturbed):
    """30 images in batches of 16: the second process has the smaller half."""
    _, report, log = undisturbed
    assert report["codes"] == [0] * 14, log
    for key in ("metrics", "merged_difference", "scales"):
        assert report["by two"][key] == report["by one"][key]


def test_two_processes_transfer_and_evaluate(commands, undisturbed):
    run, report, log = undisturbed
    assert report["codes"] == [0] * 14, log
    folder = run.parents[1] / commands.transferred / "seed0"
    result = json.loads((folder / "evaluation.json").read_text())
    assert result["provenance"]["processes"] == 2 and 0 < result["metrics"]["pixel_accuracy"] < 100
    assert (folder / "merged.safetensors").exists()
    assert not (folder / "final.pt").exists()
