"""The cells of a figure, read and checked like those of a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m2pt.config.cell_names import locate
from m2pt.config.figures import Figure
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.reporting.cells import Cell, read_named
from m2pt.reporting.notes import provenance_note
from m2pt.run_files import EVALUATION


class FigureCells:
    """The cells of a figure, by name.

    Raises:
        InputError: a result is missing or stale.
    """

    def __init__(self, plan: Plan, figure: Figure) -> None:
        self.plan = plan
        self.figure = figure
        self._cells = read_named(plan, figure.plot.cell_names())

    def cell(self, name: str) -> Cell:
        """Return the cell of this name."""
        return self._cells[locate(self.plan.tables, name).name]

    def auxiliary(self, name: str) -> str | None:
        """Return the encoder that the cell's runs attach, the first of several, None without one."""
        auxiliaries = self.cell(name).runs[0].experiment.auxiliaries
        return auxiliaries[0] if auxiliaries else None

    def modality_of_auxiliary(self, name: str) -> str | None:
        """Return the modality of the cell's auxiliary, None without one."""
        auxiliary = self.auxiliary(name)
        return self.plan.config.encoders[auxiliary].modality if auxiliary else None

    def results(self, name: str) -> Iterator[tuple[Run, int, Path]]:
        """Yield (run, seed, path of evaluation.json) of every result that the cell averages."""
        for run in self.cell(name).runs:
            for seed in self.plan.config.seeds:
                yield run, seed, self.plan.run_directory(run.name, seed) / EVALUATION

    def provenance_note(self) -> str:
        """Return with which config, seeds, code and device the cells and their baselines were measured."""
        cells = [self.cell(name) for name in self.figure.plot.cell_names()]
        baselines = [cell.baseline for cell in cells if cell.baseline is not None]
        return provenance_note(self.plan, [*cells, *baselines])


def gain_fields(cell: Cell) -> dict[str, Any]:
    """Return the fields that all records of a gain share; with one seed, only the difference."""
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


def drawn_gain(gain: float | None, one_seed_difference: float | None) -> float:
    """Return the value drawn as our gain, in points: the gain or, with one seed, the difference."""
    return next(value for value in (gain, one_seed_difference) if value is not None)
