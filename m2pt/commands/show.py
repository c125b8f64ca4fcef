"""`m2pt show CELL`: results, runs and commands of a table cell. Needs neither torch nor timm nor results."""

import argparse

from m2pt.command_line import add_config_arguments, load_plan, print_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "cell",
        help="TABLE:METHOD:COLUMN, or TABLE:SETTING/METHOD:COLUMN if a method appears in several settings, "
        "for example table1:scratch/M2PT-Point:imagenet_tune_acc",
    )
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the cell; see `m2pt.ops.describe_cell`.

    Raises:
        InputError: there is no such cell.
    """
    from m2pt.ops.describe_cell import describe_cell

    print_all(describe_cell(load_plan(arguments), arguments.cell))
