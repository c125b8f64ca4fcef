"""The submissions with jobs that may still run, on disk, so that a restarted Snakemake finds the jobs.

Snakemake's own record of a cluster job is overwritten from inside the job. The ledger is a file of JSON lines
that is only appended to, and each line is on disk before the next step is taken: first the intent to submit,
under a unique name, then the ids that the cluster returned, finally the outcome of the job. If Snakemake dies
between intent and ids, the cluster is queried for that name.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError


@dataclass(frozen=True)
class Entry:
    """A job that may be on the cluster.

    Args:
        key: identifies what the job makes and how.
        submission: name under which it was submitted, possibly together with other jobs.
        index: its position among them.
        size: their number.
        cluster: name of the cluster.
        submitted: time of the submission, as of `time.time()`.
        job_id: the cluster's id; None if it is not recorded.
        outputs: the files that it makes.
    """

    key: str
    submission: str
    index: int
    size: int
    cluster: str
    submitted: float
    job_id: str | None = None
    outputs: Sequence[str] = ()


class Ledger:
    """Open entries of a working directory, by key. Only the process that has locked the folder may write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: dict[str, Entry] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for number, line in enumerate(path.read_text("utf-8", errors="replace").split("\n"), start=1):
                try:
                    self._apply(line)
                except (LookupError, TypeError, AttributeError):
                    raise WorkflowError(
                        f"{path}, line {number}: damaged. If no job of this folder is on the cluster any "
                        "more, delete this file and start again."
                    ) from None
            self._compact()

    def intend(self, outputs: Mapping[str, Iterable[str]], submission: str, cluster: str) -> None:
        """Record that jobs are about to be submitted together.

        Args:
            outputs: the files that each job makes, by the job's key.
            submission: a unique name.
            cluster: name of the cluster.
        """
        now = time.time()
        entries = [
            Entry(key, submission, index, len(outputs), cluster, now, outputs=list(files))
            for index, (key, files) in enumerate(outputs.items())
        ]
        self._append({"intended": [asdict(entry) for entry in entries]})

    def submitted(self, job_ids: dict[str, str]) -> None:
        """Record the ids that the cluster returned, by key."""
        self._append({"submitted": job_ids})

    def close(self, keys: Iterable[str], outcome: str) -> None:
        """Record that jobs are done, failed, cancelled or were never submitted."""
        self._append({"closed": list(keys), "outcome": outcome})

    def entries(self, cluster: str) -> list[Entry]:
        """Return the open entries of a cluster."""
        return [entry for entry in list(self.open.values()) if entry.cluster == cluster]

    def without_ids(self) -> dict[str, list[Entry]]:
        """Return the open entries without a job id, by submission."""
        found: dict[str, list[Entry]] = {}
        for entry in list(self.open.values()):
            if entry.job_id is None:
                found.setdefault(entry.submission, []).append(entry)
        return found

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._apply(line)

    def _apply(self, line: str) -> None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # the last line of a process that died while writing it
            return
        for fields in record.get("intended", ()):
            self.open[fields["key"]] = Entry(**fields)
        for key, job_id in record.get("submitted", {}).items():
            self.open[key] = Entry(**{**asdict(self.open[key]), "job_id": job_id})
        for key in record.get("closed", ()):
            self.open.pop(key, None)

    def _compact(self) -> None:
        """Rewrite the file with the open entries only."""
        scratch = self.path.with_suffix(".new")
        record = {"intended": [asdict(entry) for entry in self.open.values()]}
        with scratch.open("w", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.path)
