"""`m2pt launch --nodes N --processes P COMMAND ...`: one training or evaluation in N times P processes."""

import argparse
import os
import re
import subprocess
import sys
from typing import NoReturn

from m2pt.errors import InputError, RunError

COMMANDS = ("pretrain", "finetune", "transfer", "evaluate")
"""What several processes can do together."""

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Run a command in N x P processes, which share each step of a training and the evaluation.\n\n"
        "Inside a Slurm allocation srun starts them, on N of its nodes; elsewhere torchrun does, on this\n"
        "machine. With --nodes 1 --processes 1 it is the command itself. The effective batch stays the\n"
        "recipe's batch_size * accumulation, which the processes must be able to share."
    )
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="P", help="on each node, one a GPU; default: %(default)s"
    )
    parser.add_argument(
        "--task", action="store_true", help="this is one of the processes that srun or torchrun has started"
    )
    parser.add_argument("command_", metavar="COMMAND", choices=COMMANDS, help=", ".join(COMMANDS))
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="its arguments")


def run(arguments: argparse.Namespace) -> int:
    """Become the processes: what starts them replaces this one, so that signals and exit codes pass.

    Of the exit codes srun gives the highest, and torchrun makes 1 of every failure: see
    `m2pt.training.signals` for how a scheduler's job is told that a training wants to go on.

    Raises:
        InputError: the numbers are wrong, or there are not so many nodes.
        RunError: Slurm does not say where the processes are.
    """
    from m2pt.commands import main
    from m2pt.training.signals import Interrupted, forget_failure, hold_back, say_failed

    words = [arguments.command_, *arguments.arguments]
    if arguments.task:
        try:
            if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun has set all this
                os.environ.update(rendezvous(os.environ))
            hold_back()  # importing torch takes long, and a warning is passed on to every task
            code = main(words)
        except Interrupted:
            raise
        except BaseException:
            say_failed()
            raise
        if code:
            say_failed()
        return code
    nodes, processes = arguments.nodes, arguments.processes
    for name, number in (("nodes", nodes), ("processes", processes)):
        if number < 1:
            raise InputError(f"--{name} is {number}: at least 1 is needed")
    if "SLURM_JOB_ID" in os.environ:
        available = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
        if nodes > available:
            job = os.environ["SLURM_JOB_ID"]
            raise InputError(f"--nodes is {nodes}, but Slurm job {job} has {available}: ask Slurm for more")
    elif nodes > 1:
        raise InputError(
            f"--nodes is {nodes}, but this is no Slurm allocation: start it within sbatch or salloc "
            f"--nodes={nodes}, or give --nodes 1"
        )
    if nodes == processes == 1:
        return main(words)
    forget_failure()
    start = srun(nodes, processes, words) if "SLURM_JOB_ID" in os.environ else torchrun(processes, words)
    _become(start)


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
            f"{processes} processes on a node need as many CPUs, and Slurm gave {given}: ask for more, by "
            "the resource cpus_per_task of the rule, or sbatch --cpus-per-task"
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
        raise RunError(f"{error.args[0]} is not set: --task is for what srun or torchrun starts") from None
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


def _become(command: list[str]) -> NoReturn:
    """Replace this process.

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
