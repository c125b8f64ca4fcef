"""From result files to the numbers of a table: each seed's value, mean, standard deviation, gain."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2pt.errors import InputError
from m2pt.schema.plan import Plan, Run, Spec
from m2pt.schema.tables import Column, Row


@dataclass(frozen=True)
class Cell:
    """One cell: what was measured (percent, by seed) and what was published; either may be absent."""

    row: Row
    column: Column
    run: Run | None
    values: dict[int, float]
    baseline: "Cell | None"

    @property
    def mean(self) -> float | None:
        """Mean over seeds."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds (n - 1); None with fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def published(self) -> float | None:
        """The paper's number."""
        return self.row.published.get(self.column.name)

    @property
    def gain(self) -> float | None:
        """Mean over seeds of the difference to the baseline's run of the same seed."""
        if self.baseline is None or not self.values or not self.baseline.values:
            return None
        return statistics.fmean(value - self.baseline.values[seed] for seed, value in self.values.items())

    @property
    def published_gain(self) -> float | None:
        """Difference of the two published numbers."""
        if self.baseline is None or self.published is None or self.baseline.published is None:
            return None
        return round(self.published - self.baseline.published, 6)


def read_cells(plan: Plan, table_name: str) -> list[Cell]:
    """Return every cell of a table, row by row.

    Raises:
        InputError: a result is missing, lacks the metric, or was made with another spec or seed than the
            config asks for (all such files are named).
    """
    table = plan.table(table_name)
    faults: list[str] = []
    read: dict[tuple[str, str, str], Cell] = {}

    def cell(row: Row, column: Column) -> Cell:
        key = (row.setting, row.method, column.name)
        if key not in read:
            baseline = table.baseline(row)
            run = plan.cell_run(table_name, row, column)
            values = {}
            if run is not None:
                for seed in plan.config.seeds:
                    path = plan.run_directory(run.name, seed) / "evaluation.json"
                    try:
                        values[seed] = _value(plan, path, plan.seeded_spec(run, seed), seed, column.metric)
                    except InputError as error:
                        faults.append(str(error))
            read[key] = Cell(row, column, run, values, cell(baseline, column) if baseline else None)
        return read[key]

    result = [cell(row, column) for row in table.rows for column in table.columns]
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))
    return result


def _value(plan: Plan, path: Path, spec: Spec, seed: int, metric: str) -> float:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: this result is missing; make it with: {plan.command(path)}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it and run snakemake again.") from None
    differences = list(differing(result.get("spec"), spec))
    if result.get("seed") != seed:
        differences.append(f"seed: stored {result.get('seed')}, asked for {seed}")
    if differences:
        raise InputError(
            f"{path}: stale, it was made with another spec ({'; '.join(differences[:3])}); "
            f"make it again with: {plan.command(path, again=True)}"
        )
    value = result["metrics"].get(metric)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{path}: metric {metric!r} is {value!r}; it has {', '.join(result['metrics'])}.")
    return float(value)


def differing(stored: Any, asked: Any, path: str = "spec") -> Iterator[str]:
    """Yield one sentence for each leaf in which two specs differ."""
    if isinstance(stored, Mapping) and isinstance(asked, Mapping):
        for key in [*asked, *(key for key in stored if key not in asked)]:
            yield from differing(stored.get(key), asked.get(key), f"{path}.{key}")
    elif stored != asked:
        yield f"{path}: stored {stored!r}, asked for {asked!r}"
