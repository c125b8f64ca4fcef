"""The state of a run, read from its folder: the half of the tracker that does not depend on MLflow."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from m2pt.results import Cells, Description, Ended, Metrics, metrics_entry, metrics_lines, read
from m2pt.run_files import (
    CELLS,
    DATA,
    EVALUATION,
    FAILED,
    FINISHED,
    INTERRUPTED,
    LOGS,
    METRICS,
    MLFLOW_ARTIFACTS,
    RUN,
    TRACKING,
)
from m2pt.tracking.liveness import Liveness

_WATCHED = (RUN, METRICS, EVALUATION, FINISHED, INTERRUPTED, FAILED)

_WITHOUT_RUNS = {DATA, LOGS, MLFLOW_ARTIFACTS, TRACKING}
"""Folders directly below results/ that hold no runs but may hold very many files."""


class Status(NamedTuple):
    """RUNNING, FINISHED, FAILED or KILLED (MLflow's terms), the end in ms since the epoch, and its reason."""

    name: str
    ended: int | None
    reason: str = ""


class Point(NamedTuple):
    """One value of one metric."""

    key: str
    step: int
    value: float


def find_runs(results: Path) -> Iterator["LocalRun"]:
    """Yield every folder below `results` that holds a run.json, in sorted order."""
    for folder, subfolders, files in os.walk(results):
        at_top = Path(folder) == results
        subfolders[:] = sorted(
            name for name in subfolders if name[0] != "." and not (at_top and name in _WITHOUT_RUNS)
        )
        if RUN in files and not at_top:
            yield LocalRun(results, Path(folder))


def read_cells_of_runs(results: Path) -> dict[str, list[str]]:
    """Return the names of each run's table cells, by its folder below `results`; {} without a cells.json.

    Raises:
        InputError: cells.json (`m2pt.plan.snapshot`) is damaged.
    """
    path = results / CELLS
    return {run: list(names) for run, names in read(Cells, path).root.items()} if path.exists() else {}


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested mappings as {"a.b.c": text}; strings stay as they are, any other value becomes JSON."""
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = as_text(value)
    return flat


def as_text(value: Any) -> str:
    """Return `value` itself if it is a string, else its JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parse_points(line: str, path: Path) -> list[Point]:
    """Return the metrics in one line of the metrics.jsonl at `path`: every number except its `step`.

    Raises:
        InputError: the line is not a JSON object with an integer `step`.
    """
    entry = metrics_entry(line, str(path))
    numbers = {key: value for key, value in entry.items() if key != "step" and isinstance(value, int | float)}
    return [Point(key, entry["step"], float(value)) for key, value in numbers.items()]


class LocalRun:
    """A run on disk: run.json is written first, then metrics.jsonl, then the files that mark its end.

    run.json is {"name", "spec", "seed", "provenance", "tags"} and, if the run starts from weights, their
    digests as "inputs". A training that was killed is recognized if its provenance names the `host` and `pid`
    of its process and, under Slurm, the `slurm_job`.
    """

    def __init__(self, results: Path, path: Path) -> None:
        self.path = path
        self.directory = path.relative_to(results).as_posix()

    def signature(self) -> dict[str, list[int]]:
        """Return the `file_signature` of every watched file that exists."""
        found = {}
        for name in _WATCHED:
            with suppress(FileNotFoundError):
                found[name] = file_signature(self.path / name)
        return found

    def description(self) -> Description:
        """Return the content of run.json."""
        return read(Description, self.path / RUN)

    def identity(self) -> str:
        """Return a digest of the run's folder below results, spec, seed, input weights and dataset."""
        description = self.description()
        inputs = description.inputs, description.provenance.dataset_manifest
        what = json.dumps([self.directory, description.spec, description.seed, *inputs], sort_keys=True)
        return hashlib.sha256(what.encode()).hexdigest()[:16]

    def lines(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Return the complete lines of metrics.jsonl from the `start`-th on."""
        path = self.path / METRICS
        return list(metrics_lines(path, start, stop)) if path.exists() else []

    def points(self, lines: list[str]) -> list[Point]:
        """Return the metrics in these lines of metrics.jsonl.

        Raises:
            InputError: a line is not a JSON object with an integer `step`.
        """
        return [point for line in lines for point in parse_points(line, self.path / METRICS)]

    def evaluation(self) -> dict[str, float]:
        """Return the final metrics in evaluation.json, {} if there is none yet."""
        path = self.path / EVALUATION
        return read(Metrics, path).metrics if path.exists() else {}

    def started(self) -> int | None:
        """Return when the run was started, in ms since the epoch, if its provenance says so."""
        started = self.description().provenance.started
        return None if started is None else round(datetime.fromisoformat(started).timestamp() * 1000)

    def has_stale_metrics(self, signature: Mapping[str, list[int]]) -> bool:
        """Return whether the metrics are older than run.json: a new training has begun and logged nothing."""
        return METRICS in signature and signature[METRICS][0] < signature[RUN][0]

    def status(self, signature: Mapping[str, list[int]], liveness: Liveness) -> Status:
        """Return whether the run is still running, and if not, how and when it ended.

        A marker of an interruption or failure counts only while it is the newest file: a resumed run writes
        run.json or metrics.jsonl again. An evaluation older than those belongs to a previous training. An
        interrupted run is KILLED: nothing is running, and it may never be resumed. A process that vanished
        without a marker (SIGKILL, out of memory, power failure) is KILLED too, once `liveness` is certain of
        it. `Status.reason` tells the two apart.
        """
        last_write = max(signature[name][0] for name in (RUN, METRICS) if name in signature)
        if FAILED in signature and signature[FAILED][0] >= max(stat[0] for stat in signature.values()):
            return Status("FAILED", _milliseconds(signature[FAILED]), self._reason(FAILED, "failed"))
        if FINISHED in signature:
            return Status("FINISHED", _milliseconds(signature[FINISHED]), "finished")
        if EVALUATION in signature and signature[EVALUATION][0] >= last_write:
            return Status("FINISHED", _milliseconds(signature[EVALUATION]), "finished")
        if INTERRUPTED in signature and signature[INTERRUPTED][0] >= last_write:
            ended = _milliseconds(signature[INTERRUPTED])
            return Status("KILLED", ended, self._reason(INTERRUPTED, "interrupted"))
        provenance = self.description().provenance.model_dump(exclude_none=True)
        if liveness.is_gone(self.path, provenance, last_write / 1e9):
            return Status(
                "KILLED", last_write // 1_000_000, "vanished: its process ended without giving a reason"
            )
        return Status("RUNNING", None)

    def _reason(self, marker: str, word: str) -> str:
        """Return `word` and the reason that the marker gives."""
        path = self.path / marker
        reason = read(Ended, path).reason if path.exists() else None  # a resumed training may have removed it
        return f"{word}: {reason}" if reason else word


def file_signature(path: Path) -> list[int]:
    """Return modification time in ns and size: a file is taken as unchanged while both are equal."""
    stat = path.stat()
    return [stat.st_mtime_ns, stat.st_size]


def _milliseconds(stat: list[int]) -> int:
    return stat[0] // 1_000_000
