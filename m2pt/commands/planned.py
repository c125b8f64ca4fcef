"""Arguments that the planned commands share, and what each checks before it starts to work."""

import argparse
from pathlib import Path

from m2pt.errors import InputError
from m2pt.schema.plan import Plan, parse_overrides


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --config, --set and --expect."""
    parser.add_argument(
        "--config", type=Path, default=Path("config/config.yaml"), help="default: %(default)s"
    )
    add_set_argument(parser, "replace a top-level key of the config")
    parser.add_argument("--expect", metavar="DIGEST", help="stop if the config now asks for something else")


def add_set_argument(parser: argparse.ArgumentParser, help: str) -> None:
    """Add --set, to be read by `parse_overrides`."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help)


def add_seed_argument(parser: argparse.ArgumentParser) -> None:
    """Add --seed."""
    parser.add_argument("--seed", type=_seed, default=0, help="default: %(default)s")


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < 2**31):
        raise argparse.ArgumentTypeError("must be an integer from 0 to 2147483647")
    return int(text)


def load_plan(arguments: argparse.Namespace) -> Plan:
    """Return the plan of --config and --set."""
    return Plan.load(arguments.config, parse_overrides(arguments.set))


def expect(arguments: argparse.Namespace, digest: str) -> None:
    """Stop if the config has changed since the workflow planned this command.

    Raises:
        InputError: `digest` is not the one given by --expect.
    """
    if arguments.expect is not None and arguments.expect != digest:
        raise InputError(
            f"{arguments.config} or a file it names has changed since this job was planned "
            f"(planned {arguments.expect}, now {digest}); start snakemake again."
        )
