"""What was submitted and not yet accounted for, on disk, so that a controller that dies finds its jobs again.

Snakemake's own record of a cluster job is overwritten from inside the job. This one is a file of lines that
are only appended, each safely on disk before the next step is taken: first the intent to submit, under a name
of its own, then the ids that the cluster gave, at last what came of the job. Of an intent without ids the
cluster can be asked by that name whether the submission arrived.
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

    `key` says what the job makes and how, `outputs` what it makes; `submission` is the name under which it
    was submitted with others, `index` its place among them; `job_id` is the cluster's word for it, None if
    it never got back to us.
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
    """The open entries of one working directory, by key. One controller writes at a time: see `lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: dict[str, Entry] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for number, line in enumerate(path.read_text("utf-8", errors="replace").split("\n"), start=1):
                try:
                    self._read(line)
                except (LookupError, TypeError, AttributeError):
                    raise WorkflowError(
                        f"{path}, line {number}: damaged. If none of this folder's jobs is on the cluster "
                        "any more, delete this file and start again."
                    ) from None
            self._compact()

    def intend(self, outputs: Mapping[str, Iterable[str]], submission: str, cluster: str) -> None:
        """Note that jobs, each with what it makes by its key, are about to be submitted together."""
        now = time.time()
        entries = [
            Entry(key, submission, index, len(outputs), cluster, now, outputs=list(files))
            for index, (key, files) in enumerate(outputs.items())
        ]
        self._append({"intended": [asdict(entry) for entry in entries]})

    def submitted(self, job_ids: dict[str, str]) -> None:
        """Note the cluster's ids of intended jobs, by key."""
        self._append({"submitted": job_ids})

    def closed(self, keys: Iterable[str], outcome: str) -> None:
        """Note that jobs are accounted for: done, failed, cancelled, never submitted."""
        self._append({"closed": list(keys), "outcome": outcome})

    def of(self, cluster: str) -> list[Entry]:
        """Open entries of a cluster."""
        return [entry for entry in list(self.open.values()) if entry.cluster == cluster]

    def unanswered(self) -> dict[str, list[Entry]]:
        """Entries without an id, by submission."""
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
        self._read(line)

    def _read(self, line: str) -> None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # the last line of a controller that died while writing it
            return
        for fields in record.get("intended", ()):
            self.open[fields["key"]] = Entry(**fields)
        for key, job_id in record.get("submitted", {}).items():
            self.open[key] = Entry(**{**asdict(self.open[key]), "job_id": job_id})
        for key in record.get("closed", ()):
            self.open.pop(key, None)

    def _compact(self) -> None:
        """Leave the open entries alone in the file."""
        scratch = self.path.with_suffix(".new")
        record = {"intended": [asdict(entry) for entry in self.open.values()]}
        with scratch.open("w", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.path)
