"""Schedule jobs that depend on each other: the critical path, and the time with a number of slots."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class Job(NamedTuple):
    """A job, its hours and the ids of the jobs that must finish before it starts."""

    id: str
    hours: float
    needs: tuple[str, ...] = ()


class Path(NamedTuple):
    """A chain of jobs, each of which needs the one before it, and their total hours."""

    hours: float
    chain: tuple[str, ...]


def critical_path(jobs: Sequence[Job]) -> Path:
    """Return the longest chain, a lower bound for any number of slots; `jobs` come after those they need."""
    ends: dict[str, Path] = {}
    for job in jobs:
        before = max((ends[need] for need in job.needs), key=lambda path: path.hours, default=Path(0.0, ()))
        ends[job.id] = Path(before.hours + job.hours, (*before.chain, job.id))
    return max(ends.values(), key=lambda path: path.hours, default=Path(0.0, ()))


def makespan(jobs: Sequence[Job], slots: int) -> float:
    """Return the hours until all jobs have finished with `slots` jobs at once, by list scheduling.

    A free slot takes the longest job that can start (the first of equals). The result is at most 2 - 1/slots
    times the optimum (Graham 1969).
    """
    order = {job.id: number for number, job in enumerate(jobs)}
    waiting_for = {job.id: set(job.needs) for job in jobs}
    dependents: dict[str, list[Job]] = {job.id: [] for job in jobs}
    for job in jobs:
        for need in job.needs:
            dependents[need].append(job)
    ready = [(-job.hours, order[job.id], job) for job in jobs if not job.needs]
    heapq.heapify(ready)
    running: list[tuple[float, int, Job]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            _, number, job = heapq.heappop(ready)
            heapq.heappush(running, (now + job.hours, number, job))
        now, _, ended = heapq.heappop(running)
        for job in dependents[ended.id]:
            waiting_for[job.id].discard(ended.id)
            if not waiting_for[job.id]:
                heapq.heappush(ready, (-job.hours, order[job.id], job))
    return now
