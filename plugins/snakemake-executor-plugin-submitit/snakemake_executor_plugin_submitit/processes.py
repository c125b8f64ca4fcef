"""Descendants of a process, orphans included, and the signals that they handle."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Become the parent of descendants whose own parent dies, within the block.

    Slurm's SIGTERM kills the shells at once and leaves a program that is saving without a parent. As a child
    of this process it can be waited for, and the job lives as long as this process does.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def handles_signal(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal, or blocks it in order to wait for it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return False
    masks = (int(line.split()[1], 16) for line in lines if line.startswith(("SigCgt:", "SigBlk:")))
    return any(mask >> (number - 1) & 1 for mask in masks)


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Return all descendants of a process, or none if it has ended."""
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
