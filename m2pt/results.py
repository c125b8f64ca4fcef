"""Forms of the files that a run leaves in its folder (`m2pt.run_files`), and one reader for each.

A file of a newer or an older version may have keys that are unknown here; known keys must have the types and
ranges given here. For any problem in a file, its reader raises one `InputError` that names the file.
"""

import reprlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel

from m2pt.config.names import Label
from m2pt.config.strict import Strict, validate
from m2pt.errors import InputError, short
from m2pt.formats.documents import open_binary, parse_json, read_json

LONGEST_LINE = 1 << 20
"""Bytes of a line of metrics.jsonl."""

Hash = Annotated[str, Field(pattern="^[0-9a-f]{8,128}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Step = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Score = Annotated[float, Field(ge=0, le=100.001)]
"""In percent; the mean of perfect scores may be rounded up."""


def _date(text: str) -> str:
    if not 1970 < datetime.fromisoformat(text).year < 3000:
        raise ValueError("must be a date between 1971 and 2999")
    return text


class Record(Strict):
    """A file written by m2pt, or a part of one; unlike in a config, a number is never written as a string."""

    model_config = ConfigDict(extra="allow", strict=True)


class Provenance(Record):
    """How something was made: code, packages, machine, process (`m2pt.provenance`)."""

    git_commit: Label | None = None
    device: Label | None = None
    host: str | None = None
    pid: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    slurm_job: str | None = None
    processes: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    dataset_manifest: str | None = None
    started: Annotated[str, Field(max_length=100), AfterValidator(_date)] | None = None


class Made(Provenance):
    """Provenance of a result; tables state its code and device."""

    git_commit: Label
    device: Label


class Description(Record):
    """run.json: description of a training; `inputs` are the digests of its input weights, by role."""

    spec: dict[str, Any]
    seed: Seed
    provenance: Provenance
    name: str | None = None
    tags: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, Hash] | None = None


class Finished(Record):
    """finished.json: steps and wall time of a complete training, and how many corrupt files it skipped."""

    step: Annotated[int, Field(ge=1)]
    seconds: Seconds
    skipped: Annotated[int, Field(ge=0)] = 0


class Ended(Record):
    """interrupted.json or failed.json: why a training ended before it was complete."""

    reason: str | None = None


class Training(Record):
    """Provenance of the training that a result comes from."""

    provenance: Made
    seconds: Seconds


class Metrics(Record):
    """Metrics in evaluation.json, in percent."""

    metrics: dict[str, Score]


class Evaluation(Metrics):
    """evaluation.json: a result and its provenance; `scales` are the learned ones, by the layers' names."""

    seed: Seed
    spec: dict[str, Any]
    training: Training
    provenance: Made
    scales: dict[str, float] = Field(default_factory=dict)


class Manifest(Record):
    """DATASET.manifest.json: files and hashes of a dataset (`m2pt.datasets.manifest`)."""

    listing_sha256: Hash | None = None
    content_sha256: Hash | None = None
    items: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


class Cells(RootModel[dict[str, tuple[str, ...]]]):
    """cells.json: the full names of each run's cells, by its folder below the results folder."""


class Measurement(Record):
    """Measured cost of an optimizer step; a rehearsed one is extrapolated from that many `samples`."""

    seconds: Annotated[float, Field(gt=0, le=1e9)]
    samples: Annotated[int, Field(gt=0)] | None = None


class StepCosts(RootModel[dict[str, dict[str, Measurement]]]):
    """step_costs.json: measured costs, by their key and device."""


Form = TypeVar("Form", bound=BaseModel)


def read(form: type[Form], path: Path) -> Form:
    """Return the content of a JSON file of this form.

    Raises:
        InputError: it is missing or damaged, or a value in it is missing, of the wrong type or out of range.
    """
    return validate(form, read_json(path), str(path))


def metrics_lines(
    path: Path, start: int = 0, stop: int | None = None, *, growing: bool = True
) -> Iterator[str]:
    """Yield the lines of a metrics.jsonl from the `start`-th on; while it is `growing`, only complete ones.

    Raises:
        InputError: it cannot be read, is not UTF-8, has an endless line, or ends within a line and is not
            growing.
    """
    with open_binary(path) as stream:
        every = iter(lambda: stream.readline(LONGEST_LINE), b"")
        for number, line in enumerate(islice(every, start, stop), start=start + 1):
            if len(line) == LONGEST_LINE:
                raise InputError(f"{path}, line {number}: longer than {LONGEST_LINE >> 10:,} KiB.")
            if not line.endswith(b"\n"):
                if growing:
                    return
                raise InputError(f"{path}, line {number}: cut short.")
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise InputError(f"{path}, line {number}: not UTF-8 text ({error.reason}).") from None


def metrics_entry(line: str, source: str) -> Mapping[str, Any]:
    """Return the object in a line of metrics.jsonl; its values may be NaN or infinite.

    `source` names the line, or its file, for messages.

    Raises:
        InputError: it is not a JSON object with an integer `step`.
    """
    entry = parse_json(line.strip(), source, finite=False)
    step = entry.get("step") if isinstance(entry, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise InputError(f"{source}: not an object with an integer 'step': {short(repr(line), 80)}.")
    return dict(entry)


def spec_differences(stored: Any, expected: Any, path: str = "spec") -> Iterator[str]:
    """Yield a description of each leaf in which two specs differ."""
    if isinstance(stored, Mapping) and isinstance(expected, Mapping):
        for key in [*expected, *(key for key in stored if key not in expected)]:
            yield from spec_differences(stored.get(key), expected.get(key), f"{path}.{key}")
    elif stored != expected:
        yield f"{short(path)}: stored {reprlib.repr(stored)}, expected {reprlib.repr(expected)}"
