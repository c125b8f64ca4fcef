"""Turn result files into the cells of a table: each seed's value, mean, deviation, gain, verdict."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from m2pt.config.cell_names import Place, locate
from m2pt.config.tables import Column, Row
from m2pt.errors import InputError, listed
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.plan.specs import stored_recipe
from m2pt.reporting.statistics import Interval, paired_differences, side, t_interval, verdict
from m2pt.results import Evaluation, read, spec_differences
from m2pt.run_files import EVALUATION


@dataclass(frozen=True)
class Result:
    """The evaluation.json of one run and seed; metrics in percent."""

    run: str
    seed: int
    metrics: Mapping[str, float]
    commits: frozenset[str]
    device: str
    training_seconds: float


@dataclass(frozen=True)
class Cell:
    """One cell: measured values (percent, by seed) and the published one; either may be missing.

    `results` has the results of `runs` for each seed, in the same order. Several runs belong to a dataset's
    subsets; a seed's value is the mean over them.
    """

    row: Row
    column: Column
    runs: tuple[Run, ...]
    results: Mapping[int, tuple[Result, ...]]
    baseline: "Cell | None"
    published: float | None
    paper_scale: bool

    @cached_property
    def values(self) -> dict[int, float]:
        """Value of each seed."""
        metric = self.column.metric
        return {
            seed: statistics.fmean(result.metrics[metric] for result in results)
            for seed, results in self.results.items()
        }

    @property
    def public(self) -> float | None:
        """Number that others publish for the same experiment, if it differs from the paper's."""
        return self.row.public.get(self.column.name)

    @property
    def mean(self) -> float | None:
        """Mean over seeds."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds (n - 1); None with fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @cached_property
    def differences(self) -> tuple[float, ...]:
        """Each seed's difference to the baseline of the same seed; () without a measured baseline."""
        if self.baseline is None or not self.baseline.values:
            return ()
        return paired_differences(self.values, self.baseline.values)

    @property
    def gain(self) -> float | None:
        """Mean of the differences; None with fewer than two, which do not show a gain."""
        return statistics.fmean(self.differences) if len(self.differences) > 1 else None

    @property
    def one_seed_difference(self) -> float | None:
        """Difference of the only seed, which may be chance; None with several."""
        return self.differences[0] if len(self.differences) == 1 else None

    @cached_property
    def interval(self) -> Interval | None:
        """95 % interval of the gain; None with one seed."""
        return t_interval(self.differences)

    @property
    def significant(self) -> bool:
        """Whether that interval excludes 0."""
        return side(self.interval) != 0

    @property
    def published_gain(self) -> float | None:
        """Difference of the two published numbers."""
        if self.baseline is None or self.published is None or self.baseline.published is None:
            return None
        return round(self.published - self.baseline.published, 6)

    @property
    def verdict(self) -> str:
        """Agreement of the gain with the published one: `statistics.verdict`."""
        return verdict(self.differences, self.published_gain, paper_scale=self.paper_scale)

    @property
    def has_recipe_of_baseline(self) -> bool:
        """Whether cell and baseline were trained with the same recipe; True without a comparison.

        The methods of joint training are what is compared, so that their own settings do not count.
        """
        if self.baseline is None or not self.baseline.runs or not self.runs:
            return True
        ours, theirs = (
            [{**stored_recipe(run.spec.recipe), "methods": None} for run in cell.runs]
            for cell in (self, self.baseline)
        )
        return ours == theirs


def read_cells(plan: Plan, table_name: str) -> list[Cell]:
    """Return every cell of a table, row by row.

    Raises:
        InputError: a result is missing, lacks the metric, or was made with a spec or seed other than
            the config's; all such files are named.
    """
    table = plan.table(table_name)
    names = [Place(table_name, row, column).name for row in table.rows for column in table.columns]
    return list(read_named(plan, names).values())


def read_named(plan: Plan, names: Iterable[str]) -> dict[str, Cell]:
    """Return the cells of these names (`m2pt.config.cell_names`), by their full name; no others are read.

    Raises:
        InputError: there is no such cell, or as for `read_cells`.
    """
    readers: dict[str, _Reader] = {}
    found: dict[str, Cell] = {}
    for place in (locate(plan.tables, name) for name in names):
        reader = readers.setdefault(place.table, _Reader(plan, place.table))
        found[place.name] = reader.cell(place.row, place.column)
    faults = list(dict.fromkeys(fault for reader in readers.values() for fault in reader.faults))
    if faults:
        hint = (
            "to make all of them, run snakemake with the table or figure itself, such as results/table1.csv"
        )
        raise InputError("\n".join([*faults, *([hint] if len(faults) > 1 else [])]))
    return found


class _Reader:
    """Reads cells of tables, each cell and each result file once, and collects errors."""

    def __init__(self, plan: Plan, table_name: str) -> None:
        self._plan = plan
        self._name = table_name
        self._table = plan.table(table_name)
        self._results: dict[tuple[str, int], Result] = {}
        self._cells: dict[tuple[str, str, str], Cell] = {}
        self.faults: list[str] = []

    def cell(self, row: Row, column: Column) -> Cell:
        """Return a cell; results that cannot be read are left out and added to `faults`."""
        key = (row.setting, row.method, column.name)
        if key not in self._cells:
            runs = self._plan.cell_runs(self._name, row, column)
            baseline = self._table.baseline(row)
            self._cells[key] = Cell(
                row,
                column,
                runs,
                {
                    seed: self._results_of_seed(runs, seed, column.metric)
                    for seed in self._plan.config.seeds
                    if runs
                },
                self.cell(baseline, column) if baseline else None,
                row.published.get(column.name),
                self._plan.config.paper_scale,
            )
        return self._cells[key]

    def _results_of_seed(self, runs: tuple[Run, ...], seed: int, metric: str) -> tuple[Result, ...]:
        found = []
        for run in runs:
            try:
                if (run.name, seed) not in self._results:
                    self._results[run.name, seed] = read_result(self._plan, run, seed)
                check_metric(self._plan, self._results[run.name, seed], metric)
                found.append(self._results[run.name, seed])
            except InputError as error:
                self.faults.append(str(error))
        return tuple(found)


def read_result(plan: Plan, run: Run, seed: int) -> Result:
    """Return the result of a run.

    Raises:
        InputError: it is missing or damaged, or was made with a spec or seed other than the config's.
    """
    path = plan.run_directory(run.name, seed) / EVALUATION
    if not path.exists():
        raise InputError(f"{path}: this result is missing; make it with: {plan.command(path)}")
    remedy = f"make it again with: {plan.command(path, again=True)}"
    try:
        stored = read(Evaluation, path)
    except InputError as error:
        raise InputError(f"{error}\n{path}: {remedy}") from None
    differences = list(islice(spec_differences(stored.spec, plan.stored_spec(run, seed)), 3))
    if stored.seed != seed:
        differences.append(f"seed: stored {stored.seed}, expected {seed}")
    if differences:
        raise InputError(f"{path}: stale, it was made with another spec ({'; '.join(differences)}); {remedy}")
    return Result(
        run.name,
        seed,
        metrics=stored.metrics,
        commits=frozenset({stored.training.provenance.git_commit, stored.provenance.git_commit}),
        device=stored.training.provenance.device,
        training_seconds=stored.training.seconds,
    )


def check_metric(plan: Plan, result: Result, metric: str) -> None:
    """Check that a result has this metric.

    Raises:
        InputError: it is missing.
    """
    if metric not in result.metrics:
        path = plan.run_directory(result.run, result.seed) / EVALUATION
        raise InputError(f"{path}: metric {metric!r} is missing; it has {listed(result.metrics)}.")
