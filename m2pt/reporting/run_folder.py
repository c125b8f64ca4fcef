"""What a run's folder says about itself: the reader behind the tracker. Knows nothing of MLflow."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from m2pt.reporting.liveness import Liveness
from m2pt.results import (
    EVALUATION,
    FAILED,
    FINISHED,
    INTERRUPTED,
    METRICS,
    RUN,
    Description,
    Ended,
    Metrics,
    metrics_entry,
    metrics_lines,
    read,
)

_WATCHED = (RUN, METRICS, EVALUATION, FINISHED, INTERRUPTED, FAILED)

# Folders directly below results/ that hold no runs but may hold very many files.
_WITHOUT_RUNS = {"data", "logs", "mlartifacts", "tracking"}


class Status(NamedTuple):
    """RUNNING, FINISHED, FAILED or KILLED (MLflow's words), when it ended in ms of the epoch, and how."""

    name: str
    ended: int | None
    how: str = ""


class Point(NamedTuple):
    """One value of one metric."""

    key: str
    step: int
    value: float


def find_runs(results: Path) -> Iterator["RunFolder"]:
    """Yield every folder below `results` that holds a run.json, in sorted order."""
    for folder, subfolders, files in os.walk(results):
        at_top = Path(folder) == results
        subfolders[:] = sorted(
            name for name in subfolders if name[0] != "." and not (at_top and name in _WITHOUT_RUNS)
        )
        if RUN in files and not at_top:
            yield RunFolder(results, Path(folder))


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as {"a.b.c": text}; strings stay as they are, any other value becomes JSON."""
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = as_text(value)
    return flat


def as_text(value: Any) -> str:
    """`value` itself if it is a string, else its JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def points(line: str, path: Path) -> list[Point]:
    """The metrics of one line of the metrics.jsonl at `path`: every number in it except its `step`.

    Raises:
        InputError: the line is not a JSON object with an integer `step`.
    """
    entry = metrics_entry(line, str(path))
    numbers = {key: value for key, value in entry.items() if key != "step" and isinstance(value, int | float)}
    return [Point(key, entry["step"], float(value)) for key, value in numbers.items()]


class RunFolder:
    """A folder that a command fills: run.json first, then metrics.jsonl, then the files that tell the end.

    run.json is {"name", "spec", "seed", "provenance", "tags"} and, if the run starts from weights, their
    digests as "inputs". If the provenance names the `host` and `pid` of the process that trains and, under
    Slurm, the `slurm_job`, a training killed without a last word is recognised.
    """

    def __init__(self, results: Path, path: Path) -> None:
        self.path = path
        self.directory = path.relative_to(results).as_posix()

    def signature(self) -> dict[str, list[int]]:
        """`file_signature` of every watched file that exists."""
        found = {}
        for name in _WATCHED:
            with suppress(FileNotFoundError):
                found[name] = file_signature(self.path / name)
        return found

    def description(self) -> Description:
        """The content of run.json."""
        return read(Description, self.path / RUN)

    def identity(self) -> str:
        """Digest of what this run is: its folder below results, spec, seed, input weights, dataset."""
        description = self.description()
        inputs = description.inputs, description.provenance.dataset_manifest
        what = json.dumps([self.directory, description.spec, description.seed, *inputs], sort_keys=True)
        return hashlib.sha256(what.encode()).hexdigest()[:16]

    def lines(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Complete lines of metrics.jsonl from the `start`-th on; a line still being written is left out."""
        path = self.path / METRICS
        return list(metrics_lines(path, start, stop)) if path.exists() else []

    def evaluation(self) -> dict[str, float]:
        """The final metrics in evaluation.json, {} if there is none yet."""
        path = self.path / EVALUATION
        return read(Metrics, path).metrics if path.exists() else {}

    def started(self) -> int | None:
        """When the run was started, in ms of the epoch, if its provenance says so."""
        started = self.description().provenance.started
        return None if started is None else round(datetime.fromisoformat(started).timestamp() * 1000)

    def has_leftovers(self, signature: Mapping[str, list[int]]) -> bool:
        """Whether the metrics are older than run.json: what a training that just begins has found."""
        return METRICS in signature and signature[METRICS][0] < signature[RUN][0]

    def status(self, signature: Mapping[str, list[int]], liveness: Liveness) -> Status:
        """Whether the run goes on, and if not, how and when it ended.

        A marker of an interruption or failure counts only while it is the youngest: a resumed run writes
        run.json or metrics.jsonl again. An evaluation older than those belongs to a former training. An
        interrupted run is KILLED, since nothing runs and nobody knows whether it will be started again; a
        process that vanished without a marker (SIGKILL, out of memory, power) is KILLED too, once `liveness`
        is certain of it. `Status.how` tells them apart.
        """
        last_sign = max(signature[name][0] for name in (RUN, METRICS) if name in signature)
        if FAILED in signature and signature[FAILED][0] >= max(stat[0] for stat in signature.values()):
            return Status("FAILED", _milliseconds(signature[FAILED]), self._how(FAILED, "failed"))
        if FINISHED in signature:
            return Status("FINISHED", _milliseconds(signature[FINISHED]), "finished")
        if EVALUATION in signature and signature[EVALUATION][0] >= last_sign:
            return Status("FINISHED", _milliseconds(signature[EVALUATION]), "finished")
        if INTERRUPTED in signature and signature[INTERRUPTED][0] >= last_sign:
            ended = _milliseconds(signature[INTERRUPTED])
            return Status("KILLED", ended, self._how(INTERRUPTED, "interrupted"))
        made = self.description().provenance.model_dump(exclude_none=True)
        if liveness.is_gone(self.path, made, last_sign / 1e9):
            return Status(
                "KILLED", last_sign // 1_000_000, "vanished: its process ended without giving a reason"
            )
        return Status("RUNNING", None)

    def _how(self, marker: str, word: str) -> str:
        """`word`, and what the marker gives as the reason."""
        path = self.path / marker
        reason = read(Ended, path).reason if path.exists() else None  # a resumed training may have removed it
        return f"{word}: {reason}" if reason else word


def file_signature(path: Path) -> list[int]:
    """Modification time in ns and size: a file is taken as unchanged while both are."""
    stat = path.stat()
    return [stat.st_mtime_ns, stat.st_size]


def _milliseconds(stat: list[int]) -> int:
    return stat[0] // 1_000_000
