"""Load of the executor on Slurm: many sleeping jobs through Snakemake, submitit and the ledger.

    python benchmarks/scheduling.py --jobs 500

Needs a running Slurm (tests/slurm/slurm-up starts one). Counts calls of sbatch, sacct, squeue and scancel,
measures the processor time of Snakemake and of slurmctld, and checks that every submitted job is done. With
`--array-size 1` each job is submitted on its own.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil

SNAKEFILE = """
rule all:
    input: expand("done/{{i}}", i=range({jobs}))
rule sleep:
    output: "done/{{i}}"
    resources: mem_mb=500, runtime=30
    shell: "sleep {seconds}; touch {{output}}"
"""
COUNTED = ("sbatch", "sacct", "squeue", "scancel")


def write_counting_scripts(folder: Path) -> None:
    """Write scripts that shadow the real commands and log one line per call."""
    folder.mkdir()
    (folder / "calls").touch()
    for name in COUNTED:
        script = folder / name
        script.write_text(f'#!/bin/sh\necho {name} >> "{folder}/calls"\nexec {shutil.which(name)} "$@"\n')
        script.chmod(0o755)


def processor_seconds(name: str) -> float:
    """Return the processor time of all processes of that name."""
    found = (p.cpu_times() for p in psutil.process_iter(["name"]) if p.info["name"] == name)
    return sum(times.user + times.system for times in found)


def main() -> None:
    """Run the jobs and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each job sleeps")
    parser.add_argument("--array-size", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=200, help="Snakemake's --jobs")
    parser.add_argument("--check-every", type=int, default=10, help="seconds between status checks")
    arguments = parser.parse_args()
    if shutil.which("sbatch") is None:
        sys.exit("scheduling: there is no sbatch here; start a Slurm with tests/slurm/slurm-up")
    with tempfile.TemporaryDirectory(prefix="scheduling-") as name:
        folder = Path(name)
        (folder / "Snakefile").write_text(SNAKEFILE.format(jobs=arguments.jobs, seconds=arguments.seconds))
        write_counting_scripts(folder / "bin")
        command = ["snakemake", "--executor", "submitit", "--scheduler", "greedy"]
        command += ["--jobs", str(arguments.at_once)]
        command += ["--submitit-array-size", str(arguments.array_size)]
        command += ["--seconds-between-status-checks", str(arguments.check_every)]
        environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        controller_before, began = processor_seconds("slurmctld"), time.monotonic()
        with (folder / "log").open("w") as log:
            process = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            first = last = 0.0
            submitted, seconds = 0, 0.0
            while process.poll() is None:
                times = process.cpu_times()
                seconds = times.user + times.system
                if (now := (folder / "log").read_text().count(": slurm job ")) > submitted:
                    submitted, last = now, time.monotonic()
                    first = first or last
                time.sleep(0.2)
        output = (folder / "log").read_text()
        wall = time.monotonic() - began
        calls = (folder / "bin/calls").read_text().split()
        done = len(list(folder.glob("done/*")))
        ids = re.findall(r"sleep: slurm job (\S+), log", output)
        print(f"jobs {arguments.jobs}, at most {arguments.at_once} at once, arrays of {arguments.array_size}")
        print(f"submitted {len(ids)}, different ids {len(set(ids))}, done {done}")
        print(f"wall time {wall:.1f} s; from the first to the last submission {last - first:.1f} s")
        print("calls: " + ", ".join(f"{tool} {calls.count(tool)}" for tool in COUNTED))
        print(f"processor time of Snakemake {seconds:.1f} s, {1000 * seconds / arguments.jobs:.0f} ms a job")
        load = processor_seconds("slurmctld") - controller_before
        print(f"processor time of slurmctld {load:.1f} s, {100 * load / wall:.1f} % of a core")
        if not done == len(ids) == len(set(ids)) == arguments.jobs:
            sys.exit(output[-3000:])


if __name__ == "__main__":
    main()
