"""`m2pt track RESULTS`: mirror every run to MLflow, once or live."""

import argparse
import os
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="default: %(default)s")
    parser.add_argument(
        "--follow", action="store_true", help="keep mirroring until SIGTERM or Ctrl-C, then once more"
    )
    parser.add_argument(
        "--interval",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="pause between two passes of --follow; default: %(default)s",
    )
    parser.add_argument("--owner", type=int, metavar="PID", help="with --follow: stop when this process ends")


def run(arguments: argparse.Namespace) -> int:
    """Mirror the runs; return 0, or 1 if something could not be sent.

    Raises:
        InputError: the folder does not exist, another tracker mirrors it, or MLflow does not support the URI.
    """
    from m2pt.tracking.follow import follow, mirror_once
    from m2pt.tracking.uri import MaskingStream

    uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    if uri is not None:  # MLflow and its libraries print warnings and errors themselves
        sys.stdout, sys.stderr = MaskingStream(sys.stdout, uri), MaskingStream(sys.stderr, uri)
    if arguments.follow:
        return follow(arguments.results, uri, interval=arguments.interval, owner=arguments.owner)
    return mirror_once(arguments.results, uri)
