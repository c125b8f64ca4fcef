"""Printing what may be long to whom it may be enough."""

import os
import sys


def print_all(text: str) -> None:
    """Print a command's answer. A reader that goes away, as in `m2pt plan | head`, has seen enough."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its exit
