"""Interface between the executor and the places where jobs run: Slurm, this machine, Snakemake's process."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.task import SnakemakeTask


class ClusterUnavailable(Exception):
    """The cluster did not answer, so that the state of its jobs is unknown."""


class Cluster(Protocol):
    """A place where jobs run. submitit keeps their files in `folder`, which all nodes share."""

    name: str
    folder: Path

    def submit(self, tasks: Sequence[SnakemakeTask], request: Request, name: str, comment: str) -> list[str]:
        """Submit tasks with equal requests under one name and return their job ids.

        Raises:
            WorkflowError: the cluster rejects them.
        """
        ...

    def states(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return the state of each job that the cluster knows, as the cluster names it.

        Raises:
            ClusterUnavailable: the cluster did not answer.
        """
        ...

    def find(self, name: str, since: float) -> list[str]:
        """Return the ids of the jobs that were submitted under a name since a time.

        Raises:
            ClusterUnavailable: the cluster did not answer.
        """
        ...

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel these jobs and no others; jobs that have ended are skipped.

        Raises:
            ClusterUnavailable: some of them may still run.
        """
        ...
