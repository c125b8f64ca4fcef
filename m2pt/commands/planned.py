"""Arguments that the planned commands share, and what each checks before it starts to work."""

import argparse
import re
from pathlib import Path
from typing import Any

from m2pt.errors import InputError, short
from m2pt.formats.documents import LARGEST_CONFIG, parse_yaml
from m2pt.schema.plan import Plan


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


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Turn `KEY=YAML` arguments into a mapping; of a key that is given again, the last value counts.

    Raises:
        InputError: an argument has no `=`, its key is not a top-level one, or its value is not YAML.
    """
    overrides: dict[str, Any] = {}
    for pair in pairs:
        shown = f"--set {short(pair, 60)}"
        key, equals, value = pair.partition("=")
        form = "give KEY=VALUE, the value in YAML, such as --set 'seeds=[0,1,2]'"
        if not equals:
            raise InputError(f"{shown}: {form}.")
        if not re.fullmatch("[a-z_]+", key):
            raise InputError(
                f"{shown}: give a top-level key and all of its value; {short(repr(key), 60)} is not one."
            )
        if len(value) > LARGEST_CONFIG:
            raise InputError(f"{shown}: too long; write it into a config file.")
        try:
            overrides[key] = parse_yaml(value, "this value")
        except InputError as error:
            raise InputError(f"{shown}: {form}; {error}") from None
    return overrides


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
