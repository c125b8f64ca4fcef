"""A command after a training: it writes a result without metrics."""

import argparse

from m2pt.atomic import write_json
from m2pt.command_line import add_plan_arguments, add_seed_argument, load_plan
from m2pt.run_files import EVALUATION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    plan = load_plan(arguments)
    run = plan.run(arguments.run, "tally")
    write_json(plan.run_directory(run.name, arguments.seed) / EVALUATION, {"seed": arguments.seed})
