"""`m2pt export encoders|models|tables`: copy finals to `checkpoints` for DVC. Needs no torch."""

import argparse

from m2pt.command_line import add_config_arguments, load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "what",
        choices=("encoders", "models", "tables"),
        help="pretrained encoders; merged models and their evaluations; tables, figures and metrics.json",
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove exported files that this config does not need"
    )
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export everything that is not in `checkpoints` yet.

    Raises:
        InputError: results are missing, damaged or stale; all of them are named, and nothing is exported.
    """
    from m2pt.ops.export import clean_exported, export

    plan = load_plan(arguments)
    folder = plan.checkpoints / arguments.what
    finals, written = export(plan, arguments.what)
    print(f"{folder}: {written} files written, {len(finals) - written} up to date")
    for path in clean_exported(folder, finals, prune=arguments.prune):
        print(f"{path}: removed")
