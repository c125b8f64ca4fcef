"""Workflows on a real Slurm: folders with a Snakefile, runs of Snakemake in them, and Slurm's reports."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

COUNTING = Path(__file__).with_name("counting.py")
READY = "handlers are set"
POLL_S = 0.3
PATIENCE_S = 2400  # for what may hang: jobs of all tests share the cores of this machine
QUICK = (
    "--rerun-incomplete",
    "--seconds-between-status-checks",
    "1",
    "--max-status-checks-per-second",
    "1",
    "--latency-wait",
    "5",
)
ALL_GPU_NODES = pytest.mark.xdist_group("all GPU nodes")
"""Tests that take each other's nodes run one after the other."""


def mark_slurm_tests(config: pytest.Config, items: list[pytest.Item], folder: Path) -> None:
    """Mark the tests below a folder with `slurm`, and skip them where no Slurm runs."""
    tests = [item for item in items if folder in item.path.parents]
    for item in tests:
        item.add_marker(pytest.mark.slurm)
    if tests and not _slurm_runs():
        if config.option.markexpr == "slurm":
            raise pytest.UsageError("no Slurm answers sinfo here; tests/slurm/slurm-up starts one")
        for item in tests:
            item.add_marker(
                pytest.mark.skip(reason="NOT RUN: there is no Slurm here; tests/slurm/slurm-up starts one")
            )


def _slurm_runs() -> bool:
    if not shutil.which("sinfo"):
        return False
    return subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=30).returncode == 0


def all_steps(number: int) -> str:
    """Return the output of counting.py."""
    return "".join(f"{step}\n" for step in range(number))


def slurm(*command: str) -> str:
    """Return what a command of Slurm prints."""
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, f"{shlex.join(command)}: {process.stderr}"
    return process.stdout


def slurm_takes(*command: str) -> bool:
    """Return whether a command of Slurm succeeds."""
    return subprocess.run(command, capture_output=True).returncode == 0


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(POLL_S)
    raise AssertionError(f"{what}: not within {timeout_s} s")


class Workflow:
    """A folder with a Snakefile, and the runs of Snakemake in it, all with the same options."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options = folder, options or ("--executor", "submitit", "--jobs", "16", *QUICK)
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        output = (self.folder / f"controller{len(self.processes)}.log").open("w")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            ["snakemake", *arguments, *self.options],
            cwd=self.folder,
            stdout=output,
            stderr=output,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, code: int = 0) -> str:
        self.start(*arguments)
        return self.finish(code=code)

    def finish(self, *, code: int = 0, timeout_s: float = PATIENCE_S) -> str:
        ended = self.processes[-1].wait(timeout=timeout_s)
        assert ended == code, self.output()
        return self.output()

    def output(self) -> str:
        return (self.folder / f"controller{len(self.processes) - 1}.log").read_text()

    def kill(self) -> None:
        """Send SIGKILL, as if the machine went down."""
        os.killpg(self.processes[-1].pid, signal.SIGKILL)
        self.processes[-1].wait()
        subprocess.run(["snakemake", "--unlock", "--quiet"], cwd=self.folder, check=True, capture_output=True)

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs that were ever submitted from this folder, in order."""
        scripts = (self.folder / ".snakemake/submitit/jobs").glob("*_submitted.pkl")
        return sorted(
            (path.name.removesuffix("_submitted.pkl") for path in scripts),
            key=lambda i: [*map(int, i.split("_"))],
        )

    def states(self) -> dict[str, str]:
        lines = slurm("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T").split()
        queue = dict(line.split("|") for line in lines)
        return {job_id: queue.get(job_id, "") for job_id in self.job_ids()}

    def submitted(self, rule: str) -> str:
        """Wait until a rule's job is submitted and return its id."""
        words = f"{rule}: slurm job "

        def found() -> bool:
            ended = self.processes[-1].poll() is not None
            assert words in self.output() or not ended, self.output()
            return words in self.output()

        wait_until(found, f"submission of {rule}")
        return self.output().split(words)[1].split(",")[0]

    def started(self, rule: str) -> str:
        """Wait until a rule's job runs and return its id."""
        job_id = self.submitted(rule)
        self.reaches(job_id, "RUNNING")
        return job_id

    def reaches(self, job_id: str, *states: str) -> None:
        """Wait until a job is in one of these states."""
        wait_until(lambda: self.states()[job_id] in states, f"job {job_id} {' or '.join(states)}")

    def counts(self, job_id: str, times: int = 1) -> None:
        """Wait until counting.py has started in a job for this time and can be warned."""
        wait_until(lambda: self.log(job_id).count(READY) == times, f"job {job_id} counting")

    def log(self, job_id: str) -> str:
        """Return a job's log so far; it appears a moment after the job starts."""
        path = self.folder / f".snakemake/submitit/jobs/{job_id}_0_log.out"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        """Stop everything that still runs."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if jobs := [job_id for job_id, state in self.states().items() if state]:
            slurm("scancel", "--quiet", *jobs)
