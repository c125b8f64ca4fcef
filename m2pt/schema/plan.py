"""A config file resolved: every run that the tables ask for, what it is made of, where it lies.

The workflow's rules and the commands read the same plan, so that a rule's shell line can be pasted anywhere.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2pt.errors import InputError, listed
from m2pt.formats.documents import read_yaml
from m2pt.schema.base import read_part, validate
from m2pt.schema.config import Config
from m2pt.schema.experiments import SCRATCH, Experiment, digest
from m2pt.schema.figures import Figure, check_cells
from m2pt.schema.specs import Planned, Spec, Specs
from m2pt.schema.tables import Column, Factors, Row, Table

SUMMARY = "summary"
"""Name of the result that lists the paper's claims."""


@dataclass(frozen=True)
class Run:
    """One training of a target: its factors, its resolved spec (with recipe, data, inputs), its execution."""

    experiment: Experiment
    spec: Spec
    execution: Spec

    @property
    def name(self) -> str:
        """The run's folder under results/runs."""
        return self.experiment.name

    @property
    def digest(self) -> str:
        """Hash of the whole spec; a result that stores another one is stale."""
        return digest(self.spec)


class Plan:
    """What a config asks for. Building one reads the config's recipes and tables and checks all of them.

    Raises:
        InputError: naming file, key and value of every fault found in the first faulty file.
    """

    def __init__(self, config: Config, source: str, overrides: Mapping[str, Any] | None = None) -> None:
        self.config = config
        self.source = source
        self.overrides = dict(overrides or {})
        self.results = Path(config.results)
        self.checkpoints = Path(config.checkpoints)
        self.tables = {Path(path).stem: read_part(Table, path, source) for path in config.tables}
        rows = [row for table in self.tables.values() for row in table.rows]
        self.specs = Specs(config, {self._start(row.run) for row in rows if row.run}, source)
        self._encoders = {name: self.specs.encoder(name) for name in config.encoders}
        self.encoders = {name: planned.spec for name, planned in self._encoders.items()}
        self.runs: dict[str, Run] = {}
        for name, table in self.tables.items():
            for row, column in cells(table):
                for experiment in self._experiments(name, row, column):
                    self._add(experiment)
        self.figures = {
            Path(path).stem: check_cells(read_part(Figure, path, source), self.tables, path)
            for path in config.figures
        }

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> "Plan":
        """Read the config at `path`; `overrides` replace top-level keys, as `snakemake --config` does.

        Raises:
            InputError: as for the class; or `paper_scale` is overridden.
        """
        if "paper_scale" in (overrides or {}):
            raise InputError(
                f"paper_scale speaks of the recipes that {path} names and cannot be overridden: write "
                "paper_scale into a config file of its own whose recipes are the paper's."
            )
        values = {**read_yaml(path), **(overrides or {})}
        return cls(validate(Config, values, str(path)), str(path), overrides)

    @property
    def arguments(self) -> list[str]:
        """The arguments that give an `m2pt` command this plan."""
        pairs = [f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in self.overrides.items()]
        source = f"./{self.source}" if self.source.startswith("-") else self.source  # which is no option
        return ["--config", source, *(word for pair in pairs for word in ("--set", pair))]

    def command(self, path: Path, *, again: bool = False) -> str:
        """The command that makes a result; `again` also if Snakemake thinks that it need not."""
        words = ["snakemake", str(path), *(["--forcerun", str(path)] if again else ()), "--cores", "all"]
        words += ["--configfile", self.source]
        if self.overrides:
            words += ["--config", *(_for_snakemake(key, value) for key, value in self.overrides.items())]
        return shlex.join(words)

    # ---- digests: what a job was planned with, and what Snakemake compares -------------------------------

    def dataset_digest(self, dataset: str) -> str:
        """Digest of a dataset's spec and of how thoroughly it is checked."""
        return digest([self.specs.dataset(dataset), self.config.datasets[dataset].full_check])

    def encoder_digest(self, encoder: str) -> str:
        """Digest of an encoder's spec."""
        return digest(self.encoders[encoder])

    def table_digest(self, table: str) -> str:
        """Digest of a table, of the seeds and of what is written below it."""
        dumped = self.table(table).model_dump(mode="json")
        pretrain_seeds = [self.pretrain_seed(seed) for seed in self.config.seeds]
        return digest([dumped, self.config.seeds, pretrain_seeds, self.config.paper_scale])

    def figure_digest(self, figure: str) -> str:
        """Digest of a figure and of the tables whose cells it shows."""
        tables = [self.table_digest(table) for table in self.figure(figure).tables]
        return digest([self.figure(figure).model_dump(mode="json"), tables])

    # ---- where things lie -------------------------------------------------------------------------------

    def root(self, dataset: str) -> Path:
        """Folder of a dataset in its official layout."""
        return Path(self.config.datasets[dataset].root or self.results / "data" / dataset)

    def manifest(self, dataset: str) -> Path:
        """Manifest of a dataset that has been checked."""
        return self.results / "data" / f"{dataset}.manifest.json"

    def encoder_directory(self, encoder: str, seed: int) -> Path:
        """Folder of one pretraining."""
        return self.results / "encoders" / encoder / f"seed{seed}"

    def encoder_weights(self, encoder: str, run_seed: int) -> Path:
        """Weights of an encoder for the run of `run_seed`."""
        return self.encoder_directory(encoder, self.encoder_seed(encoder, run_seed)) / "encoder.safetensors"

    def encoder_seed(self, encoder: str, run_seed: int) -> int:
        """Seed of an encoder for the run of `run_seed`.

        Random weights are drawn anew for every run's seed: they cost nothing, and one draw for all seeds
        would pass for no spread at all.
        """
        return run_seed if self.config.encoders[encoder].random else self.pretrain_seed(run_seed)

    def pretrain_seed(self, run_seed: int) -> int:
        """Seed of the pretrainings that the run of `run_seed` builds on: they are dealt out in turn."""
        seeds = self.config.pretrain_seeds
        position = self.config.seeds.index(run_seed) if run_seed in self.config.seeds else run_seed
        return seeds[position % len(seeds)]

    def seeded_spec(self, run: Run, run_seed: int) -> Spec:
        """What the run of `run_seed` stores: its spec and, if it reads encoders, their seeds."""
        seeds = {name: self.encoder_seed(name, run_seed) for name in run.experiment.encoders}
        return {**run.spec, "encoder_seeds": seeds} if seeds else run.spec

    def run_directory(self, run: str, seed: int) -> Path:
        """Folder of one training of a target."""
        return self.results / "runs" / run / f"seed{seed}"

    def encoder_checkpoint(self, encoder: str, seed: int) -> Path:
        """Folder of one pretraining's finals as DVC moves them."""
        return self.checkpoints / "encoders" / encoder / f"seed{seed}"

    def encoder_files(self, encoder: str) -> list[str]:
        """Names of the weight files that a pretraining leaves: the final one and the kept epochs."""
        kept = self.encoders[encoder]["recipe"]["keep_epochs"]
        return ["encoder.safetensors", *(f"encoder-epoch{epoch}.safetensors" for epoch in kept)]

    def run_checkpoint(self, run: str, seed: int) -> Path:
        """Folder of one run's finals as DVC moves them."""
        return self.checkpoints / "models" / run / f"seed{seed}"

    def input_weights(self, run: str, seed: int) -> dict[str, Path]:
        """Weights that a run reads, by role: `target_init` or `transfer_from`, and `auxiliary.NAME`."""
        experiment = self.run(run).experiment
        weights = {}
        if experiment.transfer_from is not None:
            source = self.run_directory(experiment.transfer_from.name, seed)
            weights["transfer_from"] = source / "merged.safetensors"
        elif experiment.target_init != SCRATCH:
            weights["target_init"] = self.encoder_weights(experiment.target_init, seed)
        for name in experiment.auxiliaries:
            weights[f"auxiliary.{name}"] = self.encoder_weights(name, seed)
        return weights

    # ---- what is needed ---------------------------------------------------------------------------------

    def run(self, name: str) -> Run:
        """Return the run of that name.

        Raises:
            InputError: no table of this config asks for it.
        """
        if name not in self.runs:
            raise InputError(
                f"no run {name!r} in this config; its runs are:\n  " + "\n  ".join(sorted(self.runs))
            )
        return self.runs[name]

    def finetuned(self, name: str) -> Run:
        """Return the finetuned run of that name.

        Raises:
            InputError: there is none, or it is a transfer.
        """
        if self.run(name).experiment.is_transfer:
            raise InputError(
                f"run {name} is a transfer, which is trained and evaluated by: m2pt transfer {name}"
            )
        return self.runs[name]

    def transferred(self, name: str) -> Run:
        """Return the transfer of that name.

        Raises:
            InputError: there is none, or it is a finetuned run.
        """
        if not self.run(name).experiment.is_transfer:
            raise InputError(
                f"run {name} is not a transfer; it is made by: m2pt finetune {name}, merge and evaluate"
            )
        return self.runs[name]

    def encoder(self, name: str) -> Planned:
        """Return the resolved encoder of that name.

        Raises:
            InputError: the config has none.
        """
        if name not in self._encoders:
            raise InputError(f"no encoder {name!r} in {self.source}; it has {listed(self._encoders)}.")
        return self._encoders[name]

    def table(self, name: str) -> Table:
        """Return the table of that name.

        Raises:
            InputError: the config does not list it.
        """
        if name not in self.tables:
            raise InputError(f"no table {name!r} in this config; its tables are: {listed(self.tables)}.")
        return self.tables[name]

    def figure(self, name: str) -> Figure:
        """Return the figure of that name.

        Raises:
            InputError: the config does not list it.
        """
        if name not in self.figures:
            known = listed(self.figures)
            raise InputError(f"no figure {name!r} in this config; its figures are: {known}.")
        return self.figures[name]

    def cell_runs(self, table: str, row: Row, column: Column) -> tuple[Run, ...]:
        """Return the runs that a cell averages: one for each subset; none where it is not asked for."""
        if column.name not in row.columns:
            return ()
        return tuple(self.runs[each.name] for each in self._experiments(table, row, column))

    @property
    def used_encoders(self) -> list[str]:
        """Names of the encoders that runs start from or attach, and of those that these are epochs of."""
        used = {name for run in self.runs.values() for name in run.experiment.encoders}
        used |= {str(self.config.encoders[name].epoch_of) for name in used if name in self.config.encoders}
        return [name for name in self.config.encoders if name in used]

    @property
    def pretrainings(self) -> list[tuple[str, int]]:
        """Encoder and seed of every pretraining that runs build on, whether it is done here or elsewhere."""
        names = [name for name in self.used_encoders if self.config.encoders[name].pretrain is not None]
        return [(name, seed) for name in names for seed in self.used_pretrain_seeds]

    @property
    def used_pretrain_seeds(self) -> list[int]:
        """Seeds of the pretrainings that runs build on."""
        return sorted({self.pretrain_seed(seed) for seed in self.config.seeds})

    @property
    def trainings(self) -> list[tuple[str, int]]:
        """Name and seed of every run."""
        return [(name, seed) for name in self.runs for seed in self.config.seeds]

    @property
    def reports(self) -> list[str]:
        """File names of everything that is printed: tables, figures and, if claims are named, the summary."""
        names = [f"{table}.{kind}" for table in self.tables for kind in ("csv", "md", "tex")]
        names += [f"{figure}.{kind}" for figure in self.figures for kind in ("pdf", "svg", "png", "csv")]
        return names + ([f"{SUMMARY}.md"] if self.config.claims is not None else [])

    def cell_and_baseline(self, table: str, row: Row, column: Column) -> Iterator[Run]:
        """The runs behind a cell and behind the baseline's cell, which its gain needs."""
        yield from self.cell_runs(table, row, column)
        baseline = self.table(table).baseline(row)
        if baseline is not None:
            yield from self.cell_runs(table, baseline, column)

    # ---- resolution -------------------------------------------------------------------------------------

    def _experiments(self, table: str, row: Row, column: Column) -> Iterator[Experiment]:
        """The experiments behind a cell, one for each subset of the dataset if it has any."""
        source = f"{self.source}: {next(path for path in self.config.tables if Path(path).stem == table)}"
        factors = row.run
        if factors is None:
            raise InputError(f"{source}: row {row.method} has cells to run but no run: section.")
        self._check_names(source, row.method, factors, column)
        if column.mode is not None:
            for subset in self.config.datasets[column.dataset].subsets or (None,):
                yield Experiment(
                    task=column.task,
                    dataset=column.dataset,
                    subset=subset,
                    mode=column.mode,
                    target_init=self._start(factors),
                    pathway=factors.pathway,
                )
            return
        if column.dataset not in self.config.transfer:
            raise InputError(
                f"{source}: column {column.name}: the config has no transfer.{column.dataset} section."
            )
        transfer = self.config.transfer[column.dataset]
        from_finetuned = (factors.transfer_from or transfer.transfer_from) == "finetuned"
        finetuned = Experiment(
            task="classification",
            dataset=column.transfer_from or "",
            mode="tune",
            target_init=self._start(factors),
            pathway=factors.pathway,
        )
        yield Experiment(
            task=column.task,
            dataset=column.dataset,
            mode="fix" if transfer.freeze_backbone else "tune",
            target_init=self._start(factors),
            pathway=None if from_finetuned else factors.pathway,
            transfer_from=finetuned if from_finetuned else None,
        )

    def _start(self, factors: Factors) -> str:
        """Name of the encoder that a row's targets start from, or "scratch"."""
        return self.config.starts.get(factors.target_init, factors.target_init)

    def _check_names(self, source: str, method: str, factors: Factors, column: Column) -> None:
        start = () if factors.target_init == SCRATCH else (factors.target_init,)
        for name in (*start, *(factors.pathway.auxiliaries if factors.pathway else ())):
            if name not in self.config.encoders:
                known = listed(self.config.encoders)
                raise InputError(
                    f"{source}: row {method}: no encoder {name!r} in the config; it has {known}."
                )
        for name in filter(None, (column.dataset, column.transfer_from)):
            if name not in self.config.datasets:
                known = listed(self.config.datasets)
                raise InputError(
                    f"{source}: column {column.name}: no dataset {name!r} in the config; it has {known}."
                )

    def _add(self, experiment: Experiment) -> Run:
        """Resolve an experiment and the one it starts from; equal experiments of two tables are one run."""
        if experiment.name not in self.runs:
            inputs: Spec = {name: self.encoders[name] for name in experiment.auxiliaries}
            if experiment.transfer_from is not None:
                inputs["transfer_from"] = self._add(experiment.transfer_from).spec
            elif experiment.target_init != SCRATCH:
                inputs["target_init"] = self.encoders[experiment.target_init]
            planned = self.specs.run(experiment, inputs)
            self.runs[experiment.name] = Run(experiment, planned.spec, planned.execution)
        return self.runs[experiment.name]


def _for_snakemake(key: str, value: Any) -> str:
    """The word after `--config`, which Snakemake reads as YAML once it has stripped quotes from its ends."""
    text = json.dumps(value, ensure_ascii=False)
    return f"{key}= {text} " if isinstance(value, str) else f"{key}={text}"


def cells(table: Table) -> Iterator[tuple[Row, Column]]:
    """Yield the (row, column) pairs of a table that are run."""
    for row in table.rows:
        for column in table.columns:
            if column.name in row.columns:
                yield row, column
