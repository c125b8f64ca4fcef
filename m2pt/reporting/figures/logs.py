"""What the trainings behind a cell logged, read from the metrics.jsonl beside each result."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from m2pt.config.strict import validate
from m2pt.errors import InputError, listed
from m2pt.reporting.figures.cells import FigureCells
from m2pt.results import Record, Step, metrics_entry, metrics_lines
from m2pt.run_files import METRICS

REMEDY = "delete the folder and train again"


class Moment(NamedTuple):
    """When a value was logged; steps and epochs count from 1."""

    step: int
    epoch: int


Log = dict[str, dict[Moment, float]]
"""Values by key and moment."""


def read_logs(cells: FigureCells, name: str, keys: Sequence[str]) -> list[Log]:
    """Return the values of these keys in the run of a cell, a log for each seed, all with the same moments.

    Raises:
        InputError: the cell averages several runs; a metrics.jsonl is missing or damaged, or lacks a key;
            those of two seeds have other moments.
    """
    runs = cells.cell(name).runs
    if len(runs) != 1:
        raise InputError(
            f"{name}: averages {len(runs)} runs, but a curve shows one; name a cell of another column."
        )
    logs = [read_log(path.with_name(METRICS), keys) for _, _, path in cells.results(name)]
    for key in keys:
        if len({tuple(log[key]) for log in logs}) != 1:
            raise InputError(
                f"run {runs[0].name}: its seeds were logged at different steps ({key}); train them again."
            )
    return logs


def read_log(path: Path, keys: Sequence[str]) -> Log:
    """Return the values of these keys in a metrics.jsonl; lines without a key are skipped for it.

    If two lines of one step have a key, the later one counts.

    Raises:
        InputError: the file is missing or damaged; a key is in no line; a value is not a finite number.
    """
    log: Log = {key: {} for key in keys}
    known: dict[str, None] = {}
    try:
        for number, line in enumerate(metrics_lines(path, growing=False), start=1):
            entry = metrics_entry(line, f"line {number}")
            known |= dict.fromkeys(entry)
            for key in keys:
                if key in entry:
                    fields = {"step": entry["step"], "epoch": entry.get("epoch"), "value": entry[key]}
                    logged = validate(_Logged, fields, f"line {number}, {key}")
                    log[key][Moment(logged.step, logged.epoch)] = logged.value
    except InputError as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); {REMEDY}.") from None
    for key, values in log.items():
        if not values:
            others = listed(name for name in known if name not in Moment._fields)
            raise InputError(f"{path}: no line has {key!r}; the training logged {others}.")
    return log


class _Logged(Record):
    step: Step
    epoch: Step
    value: float
