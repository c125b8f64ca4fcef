"""What the executor asks of a kind of cluster, whichever it is."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.task import SnakemakeTask


class NoAnswer(Exception):
    """The cluster did not answer: nothing is known of any job, which says nothing against one."""


class Cluster(Protocol):
    """A place where jobs run. `folder` is where submitit keeps their files, shared by all nodes."""

    name: str
    folder: Path

    def submit(self, tasks: Sequence[SnakemakeTask], request: Request, name: str, comment: str) -> list[str]:
        """Submit tasks of one request under a name and return their job ids.

        Raises:
            WorkflowError: the cluster refuses them.
        """
        ...

    def states(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return a word for each job that the cluster knows.

        Raises:
            NoAnswer: the cluster could not be asked.
        """
        ...

    def find(self, name: str, since: float) -> list[str]:
        """Return the ids of the jobs that were submitted under a name.

        Raises:
            NoAnswer: the cluster could not be asked.
        """
        ...

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel these jobs and no other; those that have ended are passed over.

        Raises:
            NoAnswer: some of them may not have been cancelled.
        """
        ...
