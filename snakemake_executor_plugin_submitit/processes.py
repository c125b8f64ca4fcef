"""Processes below this one, orphans included, and what signals they are prepared for."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Become the parent of descendants whose own parent dies.

    Slurm's SIGTERM kills the shells at once and leaves a training, which is saving, without a parent. As a
    child of this process it is waited for, and with this process the job stays, until it has saved.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def wants(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, or blocks it to wait for it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return False
    masks = (int(line.split()[1], 16) for line in lines if line.startswith(("SigCgt:", "SigBlk:")))
    return any(mask >> (number - 1) & 1 for mask in masks)


def below(process: psutil.Process) -> list[psutil.Process]:
    """Its descendants; none if it has ended."""
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    """Whether it has not ended; a zombie has."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
