"""The runs of a config: what each cell of its tables asks for, resolved to experiments and their specs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from m2pt import catalog
from m2pt.config.cell_names import Place
from m2pt.config.config import Config
from m2pt.config.experiment import SCRATCH, Experiment, digest
from m2pt.config.faults import Entry, Faults
from m2pt.config.tables import Column, Factors, Row, Table
from m2pt.errors import InputError, listed, short
from m2pt.plan.resolution import Specs
from m2pt.plan.specs import EncoderSpec, RunSpec, Spec


@dataclass(frozen=True)
class Run:
    """One experiment, resolved: its spec (recipe, data, inputs) and how it is executed."""

    experiment: Experiment
    spec: RunSpec

    @property
    def name(self) -> str:
        """The run's folder under results/runs."""
        return self.experiment.name

    @property
    def kind(self) -> catalog.Kind:
        """Kind of run."""
        return self.experiment.kind

    @property
    def command(self) -> str:
        """Name of the command that trains it."""
        return self.experiment.command

    @property
    def commands(self) -> tuple[str, ...]:
        """Names of the commands that make its files, in their order."""
        return (self.command, *(each.command for each in self.kind.followed_by))

    @property
    def digest(self) -> str:
        """Hash of the spec; a result that stores another spec is stale."""
        return digest(self.spec.stored)


class Runs:
    """The runs of all cells of a config's tables; a run that several cells ask for is made once.

    Args:
        config: the config.
        source: its file, for messages.
        tables: its tables, by name.
        specs: resolves experiments.
        encoders: the encoders that can be made.
        faults: those already found; a cell that they affect is left out, and its own faults are added.

    Attributes:
        by_name: the runs.
        of_cells: those of each cell, by its full name.
        left_empty: full names of cells that rows run, but whose runs cannot be made; and why.
    """

    def __init__(
        self,
        config: Config,
        source: str,
        tables: Mapping[str, Table],
        specs: Specs,
        encoders: Mapping[str, EncoderSpec],
        faults: Faults,
    ) -> None:
        self._config, self._source, self._specs, self._encoders = config, source, specs, encoders
        self.by_name: dict[str, Run] = {}
        self.of_cells: dict[str, tuple[Run, ...]] = {}
        self.left_empty: dict[str, str] = {}
        for name, table in tables.items():
            for row, column in cells(table):
                if not faults.affect(self._entries(row, column)):
                    with faults.noted():
                        self._resolve(name, row, column)

    def _entries(self, row: Row, column: Column) -> Iterator[Entry]:
        """Yield the entries of the config that a cell needs, as far as its row and column tell."""
        for name in _encoders(row.run):
            if name not in self._config.encoders:
                yield ("encoders", name)
            elif self._config.encoders[name].body == "convnext":
                yield ("convnext", "")
        kind = catalog.task(column.task).kind
        for name in filter(None, (column.dataset, column.transfer_from)):
            yield from (("datasets", name), (kind, name), ("finetune", name))
            dataset = self._config.datasets.get(name)
            yield from (("modalities", each) for each in (dataset.modalities if dataset else ()))

    def _resolve(self, table: str, row: Row, column: Column) -> None:
        """Add the runs of a cell; leave it empty if one of them needs an encoder that cannot be made."""
        cell = Place(table, row, column).name
        experiments = tuple(self._experiments(table, row, column))
        why = next(filter(None, map(self._why_unmade, experiments)), None)
        if why is not None:
            self.left_empty[cell] = why
        else:
            self.of_cells[cell] = tuple(self._add(each) for each in experiments)

    def _why_unmade(self, experiment: Experiment) -> str | None:
        """Return why the model of an experiment cannot be made, None if it can."""
        reasons = [*map(self._config.why_unmade, experiment.encoders)]
        reasons += [self._specs.lacks_norm(each) for each in (experiment, experiment.transfer_from) if each]
        return next(filter(None, reasons), None)

    def _experiments(self, table: str, row: Row, column: Column) -> Iterator[Experiment]:
        """Yield the experiments of a cell, as its kind of run has them."""
        source = f"{self._source}: {next(path for path in self._config.tables if Path(path).stem == table)}"
        factors = row.run
        if factors is None:
            raise InputError(f"{source}: row {row.method} has cells to run, but no run: section.")
        self._check_names(source, row.method, factors, column)
        name = catalog.task(column.task).kind
        owner = f"kind {name}: experiments"
        experiments = catalog.load(catalog.kind(name).experiments, owner)
        try:
            with catalog.naming(owner):
                found = tuple(experiments(self._config, factors, column))
            if not all(isinstance(each, Experiment) for each in found):
                raise InputError(f"{owner}: must yield Experiments, got {short(repr(found))}")
        except InputError as error:
            raise InputError(f"{source}: column {column.name}: {error}.") from None
        for experiment in found:
            yield self._specs.without_defaults(experiment)

    def _check_names(self, source: str, method: str, factors: Factors, column: Column) -> None:
        for name in _encoders(factors):
            if name not in self._config.encoders:
                known = listed(self._config.encoders)
                raise InputError(
                    f"{source}: row {method}: no encoder {name!r} in the config; it has {known}."
                )
        for name in filter(None, (column.dataset, column.transfer_from)):
            if name not in self._config.datasets:
                known = listed(self._config.datasets)
                raise InputError(
                    f"{source}: column {column.name}: no dataset {name!r} in the config; it has {known}."
                )

    def _add(self, experiment: Experiment) -> Run:
        """Resolve an experiment and the one it starts from; tables share runs of equal experiments."""
        if experiment.name not in self.by_name:
            # files list the auxiliaries first
            inputs = sorted(experiment.inputs, key=lambda each: not each.role.startswith("auxiliary."))
            found = {each.key: self._input_spec(each.source) for each in inputs}
            # an encoder with a fault has no spec; its runs are checked all the same, and the plan is refused
            specs = {key: spec for key, spec in found.items() if spec is not None}
            self.by_name[experiment.name] = Run(experiment, self._specs.run(experiment, specs))
        return self.by_name[experiment.name]

    def _input_spec(self, source: str | Experiment) -> Spec | None:
        return self._encoders.get(source) if isinstance(source, str) else self._add(source).spec


def _encoders(factors: Factors | None) -> tuple[str, ...]:
    """Return the encoders that a row names."""
    if factors is None:
        return ()
    start = () if factors.target_init == SCRATCH else (factors.target_init,)
    auxiliaries = factors.pathway.auxiliaries if factors.pathway else ()
    encoders = factors.balancing.encoders.values() if factors.balancing else ()
    return (*start, *auxiliaries, *encoders)


def cells(table: Table) -> Iterator[tuple[Row, Column]]:
    """Yield the (row, column) pairs of a table that are run."""
    for row in table.rows:
        for column in table.columns:
            if column.name in row.columns:
                yield row, column
