"""`m2pt rehearse`: two steps of each kind of training at true resolution, before the cluster is asked."""

import argparse
import sys

from m2pt.command_line import add_config_arguments, load_plan
from m2pt.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--batch",
        type=int,
        default=2,
        metavar="N",
        help="samples of a step, an even number; default: %(default)s",
    )
    parser.add_argument("--save", action="store_true", help="save the times, for m2pt plan")
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each kind of training; return 1 if one does not run or starts at another loss.

    Raises:
        InputError: the config is faulty, or the batch too small or odd.
    """
    if arguments.batch < 2 or arguments.batch % 2:
        raise InputError(
            f"--batch {arguments.batch}: give an even number, as mixup needs, of at least 2 for batch norms."
        )
    from m2pt.ops.rehearse import rehearse

    plan = load_plan(arguments)
    numbers = f"{'tokens':>6} {'parameters':>12} {'trained':>12} {'loss':>16} {'expected':>8}"
    print(f"{numbers} {'s/step':>7} {'GiB':>5}  training")
    failed = []
    for each in rehearse(plan, arguments.batch, save=arguments.save):
        failed += [] if each.is_sound else [each.training]
        if each.error:
            print(f"{each.training}: {each.error}", flush=True)
            continue
        losses = " ".join(f"{loss:.4g}" for loss in each.losses)
        start = f"{each.expected['loss']:.4g}" if "loss" in each.expected else ""
        print(
            f"{each.tokens:>6} {each.parameters:>12,} {each.trained:>12,} {losses:>16} {start:>8} "
            f"{each.seconds:>7.2f} {each.peak_bytes / 2**30:>5.1f}  {each.training}"
        )
        for name in [name for name in each.expected if name != "loss"]:
            print(f"{name:>32} {each.initial[name]:>16.4g} {each.expected[name]:>8.4g}")
        for fault in each.faults:
            print(f"{each.training}: {fault}")
        sys.stdout.flush()
    if failed:
        print(f"{len(failed)} kinds of training failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
