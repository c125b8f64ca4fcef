"""The cells that a figure shows, read and checked as those of a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m2pt.reporting.cells import Cell, read_named
from m2pt.reporting.notes import made
from m2pt.schema.cell_names import locate
from m2pt.schema.figures import Figure
from m2pt.schema.plan import Plan, Run


class Shown:
    """The cells of a figure, by name.

    Raises:
        InputError: a result is missing or stale.
    """

    def __init__(self, plan: Plan, figure: Figure) -> None:
        self.plan = plan
        self.figure = figure
        self._read = read_named(plan, figure.plot.cells())

    def cell(self, name: str) -> Cell:
        """The cell of this name."""
        return self._read[locate(self.plan.tables, name).name]

    def auxiliary(self, name: str) -> str | None:
        """The encoder that the cell's runs attach, the first of several."""
        auxiliaries = self.cell(name).runs[0].experiment.auxiliaries
        return auxiliaries[0] if auxiliaries else None

    def results(self, name: str) -> Iterator[tuple[Run, int, Path]]:
        """Yield (run, seed, path of evaluation.json) of every result behind a cell."""
        for run in self.cell(name).runs:
            for seed in self.plan.config.seeds:
                yield run, seed, self.plan.run_directory(run.name, seed) / "evaluation.json"

    def made(self) -> str:
        """Say with which config, seeds, code and device the figure's cells and their baselines were made."""
        cells = [self.cell(name) for name in self.figure.plot.cells()]
        return made(self.plan, [*cells, *(cell.baseline for cell in cells if cell.baseline is not None)])


def gain_fields(cell: Cell) -> dict[str, Any]:
    """What every record of a gain has, by field; with one seed a difference, and nothing that judges it."""
    low, high = cell.interval or (None, None)
    return {
        "metric": f"{cell.column.group} {cell.column.title}",
        "seeds": len(cell.values),
        "one_seed_difference": cell.one_seed_difference,
        "gain": cell.gain,
        "interval_low": low,
        "interval_high": high,
        "significant": cell.significant if cell.interval else None,
        "published_gain": cell.published_gain,
    }


def ours(gain: float | None, one_seed_difference: float | None) -> float:
    """Return what is drawn as ours, in points: the gain or, with one seed, the difference."""
    return next(value for value in (gain, one_seed_difference) if value is not None)
