"""Workflows on a real Slurm. `tests/slurm/slurm-up` starts one on this machine, `.ci/run` does so."""

import contextlib
import os
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
POLL_S = 0.3


def slurm_runs() -> bool:
    if not shutil.which("sinfo"):
        return False
    return subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=30).returncode == 0


def pytest_collection_modifyitems(items):
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.slurm)
    if here and not slurm_runs():
        for item in here:
            item.add_marker(
                pytest.mark.skip(reason="NOT RUN: there is no Slurm here; tests/slurm/slurm-up starts one")
            )


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 300):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(POLL_S)
    raise AssertionError(f"{what}: not within {timeout_s} s")


class Workflow:
    """A folder with a Snakefile, and the Snakemakes that are started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def start(self, *arguments: str, cluster: str = "slurm") -> subprocess.Popen[str]:
        output = (self.folder / f"controller{len(self.processes)}.log").open("w")
        command = ["snakemake", "--executor", "submitit", "--submitit-cluster", cluster, "--jobs", "16"]
        command += ["--seconds-between-status-checks", "1", "--rerun-incomplete", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=output,
            stderr=output,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, code: int = 0, timeout_s: float = 180, cluster: str = "slurm") -> str:
        self.start(*arguments, cluster=cluster)
        return self.finish(code=code, timeout_s=timeout_s)

    def finish(self, *, code: int = 0, timeout_s: float = 180) -> str:
        ended = self.processes[-1].wait(timeout=timeout_s)
        assert ended == code, self.said()
        return self.said()

    def said(self) -> str:
        return (self.folder / f"controller{len(self.processes) - 1}.log").read_text()

    def kill(self) -> None:
        """SIGKILL, as if the machine went away."""
        os.killpg(self.processes[-1].pid, signal.SIGKILL)
        self.processes[-1].wait()
        subprocess.run(["snakemake", "--unlock", "--quiet"], cwd=self.folder, check=True, capture_output=True)

    def job_ids(self) -> list[str]:
        """Ids of all jobs of this folder that Slurm has ever got, in order."""
        scripts = (self.folder / ".snakemake/submitit/jobs").glob("*_submitted.pkl")
        return sorted(
            (path.name.removesuffix("_submitted.pkl") for path in scripts),
            key=lambda i: [*map(int, i.split("_"))],
        )

    def states(self) -> dict[str, str]:
        command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        queue = dict(line.split("|") for line in lines)
        return {job_id: queue.get(job_id, "") for job_id in self.job_ids()}

    def one_job(self, state: str) -> str:
        """The id of this folder's job in this state."""

        def found():
            return next((job_id for job_id, word in self.states().items() if word == state), None)

        return wait_until(found, f"a job in state {state}")

    def log(self, job_id: str) -> str:
        return (self.folder / f".snakemake/submitit/jobs/{job_id}_0_log.out").read_text()


@pytest.fixture
def workflow(tmp_path):
    made = Workflow(tmp_path)
    yield made
    for process in made.processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if jobs := [job_id for job_id in made.job_ids() if made.states()[job_id]]:
        subprocess.run(["scancel", "--quiet", *jobs], check=False)
