"""Workflows on a real Slurm: folders with a Snakefile, Snakemakes started in them, and what Slurm says."""

import contextlib
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
COUNTING = Path(__file__).with_name("counting.py")
READY = "handlers are set"
POLL_S = 0.3
QUICK = (
    "--rerun-incomplete",
    "--seconds-between-status-checks",
    "1",
    "--max-status-checks-per-second",
    "1",
    "--latency-wait",
    "5",
)


def all_steps(number: int) -> str:
    """What counting.py makes."""
    return "".join(f"{step}\n" for step in range(number))


def slurm(*command: str) -> str:
    """Return what a command of Slurm prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 300):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(POLL_S)
    raise AssertionError(f"{what}: not within {timeout_s} s")


class Workflow:
    """A folder with a Snakefile, and the Snakemakes that are started in it, all with these options."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options = folder, options or ("--executor", "submitit", "--jobs", "16", *QUICK)
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        output = (self.folder / f"controller{len(self.processes)}.log").open("w")
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
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

    def finish(self, *, code: int = 0, timeout_s: float = 900) -> str:
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
        lines = slurm("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T").split()
        queue = dict(line.split("|") for line in lines)
        return {job_id: queue.get(job_id, "") for job_id in self.job_ids()}

    def submitted(self, rule: str) -> str:
        """The id of a rule's job, once it is submitted."""
        words = f"{rule} is job "

        def found() -> bool:
            over = self.processes[-1].poll() is not None
            assert words in self.said() or not over, self.said()
            return words in self.said()

        wait_until(found, f"submission of {rule}")
        return self.said().split(words)[1].split()[0]

    def started(self, rule: str) -> str:
        """The id of a rule's job, once it runs."""
        job_id = self.submitted(rule)
        self.reaches(job_id, "RUNNING")
        return job_id

    def reaches(self, job_id: str, *states: str) -> None:
        """Wait until a job is in one of these states."""
        wait_until(lambda: self.states()[job_id] in states, f"job {job_id} {' or '.join(states)}")

    def counts(self, job_id: str, times: int = 1) -> None:
        """Wait until counting.py has been started so many times in a job and can be warned."""
        wait_until(lambda: self.log(job_id).count(READY) == times, f"job {job_id} counting")

    def log(self, job_id: str) -> str:
        """A job's log so far; it appears a moment after the job runs."""
        path = self.folder / f".snakemake/submitit/jobs/{job_id}_0_log.out"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        """Leave nothing running."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if jobs := [job_id for job_id, state in self.states().items() if state]:
            slurm("scancel", "--quiet", *jobs)
