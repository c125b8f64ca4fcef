"""`m2pt check`: build everything that the config asks for once, without training."""

import argparse

from m2pt.command_line import add_config_arguments, load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--datasets", nargs="+", default=[], metavar="NAME", help="also run the quick check of these datasets"
    )
    parser.add_argument(
        "--encoders",
        nargs="+",
        default=[],
        metavar="NAME",
        help="also check the files that these encoders are taken from",
    )
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Check the plan; see `m2pt.ops.check`.

    Raises:
        InputError: something cannot be built; every fault is named.
    """
    from m2pt.ops.check import check_plan
    from m2pt.plan.claims import missing_cells
    from m2pt.plan.jobs import used_encoders

    plan = load_plan(arguments)
    count = check_plan(plan, arguments.datasets, arguments.encoders)
    print(f"{plan.source}: all {count} distinct trainings build; check the data with: m2pt data check NAME")
    unread = [
        name
        for name in used_encoders(plan)
        if (plan.config.encoders[name].file or plan.config.encoders[name].source == "dvc")
        and name not in arguments.encoders
    ]
    if unread:
        print(f"files of encoders were not read; check them too with: --encoders {' '.join(unread)}")
    for sentence in missing_cells(plan):
        print(sentence)
