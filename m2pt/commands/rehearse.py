"""`m2pt rehearse`: two steps of each kind of training at true resolution, before the cluster is asked."""

import argparse

from m2pt.command_line import add_config_arguments, load_plan, parse_overrides
from m2pt.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--batch", type=int, default=2, metavar="N", help="samples of a step, 2 or more; default: %(default)s"
    )
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each kind of training; return 1 if one of them does not run.

    Raises:
        InputError: the config is faulty, or the batch too small.
    """
    if arguments.batch < 2:
        raise InputError(f"--batch {arguments.batch}: batch norms need at least 2 samples.")
    from m2pt.ops.rehearse import rehearse

    plan = load_plan(arguments)
    print(f"{'tokens':>6} {'parameters':>12} {'trained':>12} {'loss':>16} {'s/step':>7} {'GiB':>5}  training")
    failed = 0
    for each in rehearse(plan, arguments.config, parse_overrides(arguments.set), arguments.batch):
        failed += not each.is_sound
        if each.error:
            print(f"{each.training}: {each.error}", flush=True)
            continue
        losses = " ".join(f"{loss:.4g}" for loss in each.losses)
        print(
            f"{each.tokens:>6} {each.parameters:>12,} {each.trained:>12,} {losses:>16} {each.seconds:>7.2f} "
            f"{each.peak_bytes / 2**30:>5.1f}  {each.training}",
            flush=True,
        )
    return 1 if failed else 0
