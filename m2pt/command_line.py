"""Arguments shared by the commands, their checks, and printing of long output."""

import argparse
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from m2pt import job_log
from m2pt.errors import InputError, short
from m2pt.formats.documents import LARGEST_CONFIG, parse_yaml
from m2pt.plan.plan import Plan
from m2pt.run_files import EVALUATION


class CommandModule(Protocol):
    """The module of a command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""
        ...

    def run(self, arguments: argparse.Namespace) -> int | None:
        """Run the command; return an exit code, or None for 0."""
        ...


DEFAULT_CONFIG = Path("config/config.yaml")


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --config and --set, to be read by `load_plan`."""
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="default: %(default)s")
    add_set_argument(parser, "replace a top-level key of the config, e.g. 'seeds=[0,1,2]'")


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --config, --set, and --expect, to be read by `expect`."""
    add_config_arguments(parser)
    parser.add_argument("--expect", metavar="DIGEST", help="stop if the config no longer has this digest")


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
    """Return the plan of --config and --set.

    Raises:
        InputError: a file is missing or faulty, or an override is.
    """
    if arguments.config == DEFAULT_CONFIG and not DEFAULT_CONFIG.exists():
        raise InputError(f"there is no {DEFAULT_CONFIG} here: run m2pt in the clone, or give --config FILE.")
    return Plan.load(arguments.config, parse_overrides(arguments.set))


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Turn `KEY=YAML` arguments into a mapping; the last value of a repeated key wins.

    Raises:
        InputError: an argument has no `=`, its key is not at the top level, or its value is not YAML.
    """
    overrides: dict[str, Any] = {}
    for pair in pairs:
        option = f"--set {short(pair, 60)}"
        key, equals, value = pair.partition("=")
        form = "give KEY=VALUE with a YAML value, such as --set 'seeds=[0,1,2]'"
        if not equals:
            raise InputError(f"{option}: {form}.")
        if not re.fullmatch("[a-z_]+", key):
            raise InputError(
                f"{option}: give a top-level key and its whole value; {short(repr(key), 60)} is not one."
            )
        if len(value) > LARGEST_CONFIG:
            raise InputError(f"{option}: too long; write it into a config file.")
        try:
            overrides[key] = parse_yaml(value, "this value")
        except InputError as error:
            raise InputError(f"{option}: {form}; {error}") from None
    return overrides


def expect(arguments: argparse.Namespace, digest: str) -> None:
    """Stop if the config has changed since the workflow planned this command.

    Raises:
        InputError: `digest` differs from --expect.
    """
    if arguments.expect is not None and arguments.expect != digest:
        raise InputError(
            f"{arguments.config} or a file it names has changed since this job was planned "
            f"(planned {arguments.expect}, now {digest}); run snakemake again."
        )


def begin_report(plan: Plan, title: str, paths: Iterable[Path]) -> None:
    """Print what the log of a table, a figure or the summary begins with: what it reads and writes."""
    rows = {
        "config": plan.source,
        "reads": plan.results / "runs/*/seed*" / EVALUATION,
        "seeds": ", ".join(map(str, plan.config.seeds)),
        "results": ", ".join(map(str, paths)),
    }
    job_log.begin(title, rows)


def print_all(text: str) -> None:
    """Print a command's output; a reader that closes the pipe, as in `m2pt plan | head`, is not an error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # Python flushes stdout once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
