"""Start the processes of a training: by torchrun on this machine, by srun inside a Slurm allocation."""

import os
import re
import subprocess
import sys
from typing import NoReturn

from m2pt.errors import InputError, RunError

FIRST_PORT, PORTS = 10_000, 20_000
"""Below the ports that Linux gives to outgoing connections (32768 and above)."""

TORCHRUN = {
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2",
    "PET_SHUTDOWN_TIMEOUT": "3600",
}
"""torchrun's options --signals-to-handle and --shutdown-timeout, as variables: older ones refuse the options.

It passes on the signals that it handles, by itself neither SIGUSR1 nor SIGUSR2, and kills its processes so
many seconds after one: they are given as long as a step and a checkpoint may take.
"""

STEP_STRIDE = 7919
"""A prime, so that the steps of a job do not meet the jobs submitted just after it."""


def torchrun(processes: int, words: list[str]) -> list[str]:
    """Return the command that starts the processes on this machine; it finds a free port by itself."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*start, "--nproc-per-node", str(processes), "-m", "m2pt", "launch", "--task", *words]


def srun(nodes: int, processes: int, words: list[str]) -> list[str]:
    """Return the command that starts the processes on nodes of the allocation, with its CPUs divided.

    Raises:
        InputError: there are not enough of them.
    """
    tasks = int(os.environ.get("SLURM_NTASKS_PER_NODE", "1"))  # for which the allocation was made
    cpus = max(1, tasks * int(os.environ.get("SLURM_CPUS_PER_TASK", "1")) // processes)
    given = int(os.environ.get("SLURM_CPUS_ON_NODE", processes))
    if given < processes:
        raise InputError(
            f"{processes} processes per node need {processes} CPUs, but Slurm allocated {given}; raise the "
            "rule's resource cpus_per_task, or sbatch --cpus-per-task"
        )
    start = ["srun", "--nodes", str(nodes), "--ntasks", str(nodes * processes)]
    start += ["--ntasks-per-node", str(processes), "--cpus-per-task", str(cpus), "--kill-on-bad-exit=1"]
    if "SLURM_STEP_ID" in os.environ:  # a step of the job waits for us, and has what we need
        start += ["--overlap", "--mem", "0"]  # the memory of the job, which that step was given
    return [*start, sys.executable, "-m", "m2pt", "launch", "--task", *words]


def rendezvous(environment: "os._Environ[str] | dict[str, str]") -> dict[str, str]:
    """Return what torch.distributed reads, from Slurm's variables of one task.

    The port is a function of job and step, so that all tasks know it. Two trainings on a node meet only if
    `job + STEP_STRIDE * step` is the same for both, or differs by a multiple of `PORTS`.

    Raises:
        RunError: a variable is missing, or the list of nodes cannot be expanded.
    """
    try:
        job, step = int(environment["SLURM_JOB_ID"]), int(environment.get("SLURM_STEP_ID", "0"))
        nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
        world, rank, local = (environment[f"SLURM_{name}"] for name in ("NTASKS", "PROCID", "LOCALID"))
        # "2(x3),1": two tasks on each of three nodes, then one
        per_node = environment["SLURM_STEP_TASKS_PER_NODE"]
    except KeyError as error:
        raise RunError(f"{error.args[0]} is not set: --task is only for tasks of srun or torchrun") from None
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise RunError(f"{' '.join(command)} failed: {getattr(error, 'stderr', '') or error}") from None
    return {
        "MASTER_ADDR": hosts[0],
        "MASTER_PORT": str(FIRST_PORT + (job + STEP_STRIDE * step) % PORTS),
        "WORLD_SIZE": world,
        "RANK": rank,
        "LOCAL_RANK": local,
        "LOCAL_WORLD_SIZE": re.split(r"[(,]", per_node)[0],
    }


def replace_process(command: list[str]) -> NoReturn:
    """Replace this process by the command.

    Raises:
        InputError: the program is not there.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch gets its threads from the config
    for name, value in TORCHRUN.items():
        os.environ.setdefault(name, value)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise InputError(f"{command[0]} cannot be started: {error.strerror}") from None
