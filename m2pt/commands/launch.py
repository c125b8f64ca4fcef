"""`m2pt launch --nodes N --processes P COMMAND ...`: one training or evaluation in N x P processes."""

import argparse
import os

from m2pt import catalog
from m2pt.errors import InputError
from m2pt.ops.launch import rendezvous, replace_process, srun, torchrun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Run a command in N x P processes, which share each step of a training and the evaluation.\n\n"
        "Inside a Slurm allocation they are started by srun on N of its nodes, elsewhere by torchrun on\n"
        "this machine. --nodes 1 --processes 1 runs the command itself. The effective batch stays the\n"
        "recipe's batch_size * accumulation; the processes must be able to share it."
    )
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="P", help="per node, one per GPU; default: %(default)s"
    )
    parser.add_argument(
        "--task", action="store_true", help="internal: set for processes that srun or torchrun started"
    )
    names = ("pretrain", *(name for name, entry in catalog.commands().items() if entry.launchable))
    parser.add_argument("command_", metavar="COMMAND", choices=names, help=", ".join(names))
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="its arguments")


def run(arguments: argparse.Namespace) -> int:
    """Replace this process with srun or torchrun, so that signals and exit codes pass through.

    srun exits with the highest exit code, torchrun with 1 for every failure; `m2pt.training.signals`
    describes how a scheduler still learns that a training can be resumed.

    Raises:
        InputError: a number is below 1, or the allocation has too few nodes.
        RunError: Slurm's variables do not say where the processes run.
    """
    from m2pt.commands import main
    from m2pt.training.signals import Interrupted, block_stop_signals, clear_failure, report_failure

    words = [arguments.command_, *arguments.arguments]
    if arguments.task:
        try:
            if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun sets these variables itself
                os.environ.update(rendezvous(os.environ))
            block_stop_signals()  # every task gets the signal, and importing torch takes long
            code = main(words)
        except Interrupted:
            raise
        except BaseException:
            report_failure()
            raise
        if code:
            report_failure()
        return code
    nodes, processes = arguments.nodes, arguments.processes
    for name, number in (("nodes", nodes), ("processes", processes)):
        if number < 1:
            raise InputError(f"--{name} {number}: must be an integer >= 1")
    if "SLURM_JOB_ID" in os.environ:
        available = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
        if nodes > available:
            job = os.environ["SLURM_JOB_ID"]
            raise InputError(f"--nodes {nodes}: Slurm job {job} has {available}; request more nodes")
    elif nodes > 1:
        raise InputError(
            f"--nodes {nodes}: not inside a Slurm allocation; use sbatch or salloc "
            f"--nodes={nodes}, or --nodes 1"
        )
    if nodes == processes == 1:
        return main(words)
    clear_failure()
    start = srun(nodes, processes, words) if "SLURM_JOB_ID" in os.environ else torchrun(processes, words)
    replace_process(start)
