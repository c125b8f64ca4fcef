"""The plan of a config: every run that its tables ask for, resolved to specs, seeds and paths.

Rules and commands read the same plan, so a rule's shell line can be pasted into a terminal.
"""

import difflib
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from m2pt.config.cell_names import Place, locate
from m2pt.config.claims import Claims, check_comparisons
from m2pt.config.config import Config, read_config
from m2pt.config.experiment import Experiment, digest
from m2pt.config.faults import Faults
from m2pt.config.figures import Figure, Plot, check_cells
from m2pt.config.strict import read_part
from m2pt.config.tables import Column, Row, Table
from m2pt.errors import InputError, listed
from m2pt.formats.documents import read_yaml
from m2pt.plan.experiments import target_init
from m2pt.plan.resolution import Specs
from m2pt.plan.runs import Run, Runs
from m2pt.plan.specs import EncoderSpec, PretrainingSpec, Stored
from m2pt.run_files import (
    DATA,
    ENCODER,
    ENCODERS,
    FIGURE_FORMATS,
    MANIFEST,
    MERGED,
    RUNS,
    SUMMARY,
    TABLE_FORMATS,
    encoder_after,
    training_folder,
)

Found = TypeVar("Found")

MOST_LISTED = 10
"""Names of runs in a message, unless some are close to the one that was given."""


class Plan:
    """Everything that a config asks for. Building a plan reads and checks all files that the config names.

    Args:
        config: the config.
        source: its file, for messages.
        overrides: what replaces top-level keys of the file.
        faults: those already found in the config, to be told with those found here.

    Raises:
        InputError: naming file, key and value of every fault of the config, its recipes, tables, figures and
            claims.
    """

    def __init__(
        self,
        config: Config,
        source: str,
        overrides: Mapping[str, Any] | None = None,
        faults: Faults | None = None,
    ) -> None:
        faults = faults or Faults()
        self.config = config
        self.source = source
        self.overrides = dict(overrides or {})
        self.results = Path(config.results)
        self.checkpoints = Path(config.checkpoints)
        self.tables: dict[str, Table] = {}
        for path in config.tables:
            with faults.noted(("tables", Path(path).stem)):
                self.tables[Path(path).stem] = read_part(Table, path, source)
        rows = [row for table in self.tables.values() for row in table.rows]
        starts = {target_init(config, row.run) for row in rows if row.run}
        for row in rows:
            if row.run and row.run.balancing:
                starts |= set(row.run.balancing.encoders.values())
        self.specs = Specs(config, starts, source, has_sizes=not faults.affect([("backbone", "")]))
        self.encoders: dict[str, EncoderSpec] = {}
        for name in config.encoders:
            if not faults.affect(config.entries_behind(name)) and config.why_unmade(name) is None:
                with faults.noted(("encoders", name)):
                    self.encoders[name] = self.specs.encoder(name)
        found = Runs(config, source, self.tables, self.specs, self.encoders, faults)
        self.runs = found.by_name
        self.left_empty = found.left_empty
        self._runs_of_cells = found.of_cells
        figures = self._read_figures(faults)
        if config.claims is not None and "tables" not in self.overrides:  # they belong to the file's tables
            self._check_claims(config.claims, faults)
        faults.raise_all()
        self.figures: dict[str, Figure] = {}
        self.not_drawn: dict[str, dict[str, str]] = {}
        """By figure, the names of cells that it does not draw, and why. One that draws none has no place in
        `figures`."""
        for name, figure in figures.items():
            self._add_figure(name, figure)

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> "Plan":
        """Read the config at `path`; `overrides` replace top-level keys, as `snakemake --config` does.

        Raises:
            InputError: as for the class; or `paper_scale` is overridden.
        """
        if "paper_scale" in (overrides or {}):
            raise InputError(
                f"paper_scale cannot be overridden: it describes the recipes in {path}. Set it in a config "
                "that uses the paper's recipes."
            )
        values, faults = {**read_yaml(path), **(overrides or {})}, Faults()
        return cls(read_config(values, str(path), faults), str(path), overrides, faults)

    @property
    def arguments(self) -> list[str]:
        """Arguments that give an `m2pt` command this plan."""
        pairs = [f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in self.overrides.items()]
        source = f"./{self.source}" if self.source.startswith("-") else self.source  # which is no option
        return ["--config", source, *(word for pair in pairs for word in ("--set", pair))]

    def shell_command(self, *words: str) -> str:
        """Return the shell line of an `m2pt` command with the arguments that give it this plan."""
        return shlex.join(["m2pt", *words, *self.arguments])

    def command(self, path: Path, *, again: bool = False) -> str:
        """Return the Snakemake command that makes a result; `again` forces it to."""
        words = ["snakemake", str(path), *(["--forcerun", str(path)] if again else ()), "--cores", "all"]
        words += ["--configfile", self.source]
        if self.overrides:
            words += ["--config", *(_for_snakemake(key, value) for key, value in self.overrides.items())]
        return shlex.join(words)

    # ---- digests: what Snakemake compares, and what --expect checks ----------------------------------------

    def dataset_digest(self, dataset: str) -> str:
        """Return the digest of a dataset's spec and of how thoroughly it is checked."""
        return digest([self.specs.dataset(dataset).stored, self.config.datasets[dataset].full_check])

    def encoder_digest(self, encoder: str) -> str:
        """Return the digest of an encoder's spec."""
        return digest(self.encoders[encoder].stored)

    def table_digest(self, table: str) -> str:
        """Return the digest of a table, of the seeds and of the notes below it."""
        dumped = self.table(table).model_dump(mode="json")
        pretrain_seeds = [self.pretrain_seed(seed) for seed in self.config.seeds]
        empty = self.empty_cells(table)
        noted = [empty] if empty else []
        return digest([dumped, self.config.seeds, pretrain_seeds, self.config.paper_scale, *noted])

    def figure_digest(self, figure: str) -> str:
        """Return the digest of a figure, of the tables of its cells and of the note on missing ones."""
        tables = [self.table_digest(table) for table in self.figure(figure).tables]
        noted = [self.not_drawn[figure]] if figure in self.not_drawn else []
        return digest([self.figure(figure).model_dump(mode="json"), tables, *noted])

    # ---- paths -------------------------------------------------------------------------------------------

    def root(self, dataset: str) -> Path:
        """Return the folder of a dataset in its official layout."""
        return Path(self.config.datasets[dataset].root or self.results / DATA / dataset)

    def manifest(self, dataset: str) -> Path:
        """Return the manifest that a dataset gets once it has been checked."""
        return self.results / DATA / f"{dataset}.{MANIFEST}"

    def encoder_directory(self, encoder: str, seed: int | str) -> Path:
        """Return the folder of one pretraining."""
        return training_folder(self.results / ENCODERS, encoder, seed)

    def encoder_weights(self, encoder: str, run_seed: int) -> Path:
        """Return the weights of an encoder for the run of `run_seed`."""
        return self.encoder_directory(encoder, self.encoder_seed(encoder, run_seed)) / ENCODER

    def encoder_seed(self, encoder: str, run_seed: int) -> int:
        """Return the seed of an encoder for the run of `run_seed`.

        Random weights are drawn anew for every run's seed. They cost nothing, and a single draw would hide
        their part of the spread over seeds.
        """
        return run_seed if self.config.encoders[encoder].random else self.pretrain_seed(run_seed)

    def pretrain_seed(self, run_seed: int) -> int:
        """Return the pretraining seed for the run of `run_seed`: runs take the pretraining seeds in turn."""
        seeds = self.config.pretrain_seeds
        position = self.config.seeds.index(run_seed) if run_seed in self.config.seeds else run_seed
        return seeds[position % len(seeds)]

    def stored_spec(self, run: Run, run_seed: int) -> Stored:
        """Return what the run of `run_seed` stores: its spec and, if it reads encoders, their seeds."""
        seeds = {name: self.encoder_seed(name, run_seed) for name in run.experiment.encoders}
        return {**run.spec.stored, "encoder_seeds": seeds} if seeds else run.spec.stored

    def run_directory(self, run: str, seed: int | str) -> Path:
        """Return the folder of one training of a target."""
        return training_folder(self.results / RUNS, run, seed)

    def encoder_checkpoint(self, encoder: str, seed: int) -> Path:
        """Return the folder of one pretraining's final files as DVC moves them."""
        return training_folder(self.checkpoints / ENCODERS, encoder, seed)

    def encoder_files(self, encoder: str) -> list[str]:
        """Return the names of a pretraining's weight files: the final one, then the kept epochs."""
        spec = self.encoders[encoder]
        kept = spec.recipe.keep_epochs if isinstance(spec, PretrainingSpec) else ()
        return [ENCODER, *map(encoder_after, kept)]

    def run_checkpoint(self, run: str, seed: int) -> Path:
        """Return the folder of one run's final files as DVC moves them."""
        return training_folder(self.checkpoints / "models", run, seed)

    def input_weights(self, run: str, seed: int) -> dict[str, Path]:
        """Return the weights that a run reads, by role: target_init or transfer_from, auxiliary.NAME."""
        return {each.role: self._weights(each.source, seed) for each in self.run(run).experiment.inputs}

    def _weights(self, source: str | Experiment, seed: int) -> Path:
        if isinstance(source, str):
            return self.encoder_weights(source, seed)
        return self.run_directory(source.name, seed) / MERGED

    # ---- look-ups ----------------------------------------------------------------------------------------

    def run(self, name: str, command: str | None = None) -> Run:
        """Return the run of that name; `command` is the command that is to make files of it.

        Raises:
            InputError: no table of this config asks for it, or it is made by other commands.
        """
        if name not in self.runs:
            known = sorted(run.name for run in self.runs.values() if command in (None, *run.commands))
            near = [each for each in known if each.startswith(name)]
            near = near[:MOST_LISTED] or difflib.get_close_matches(name, known, n=5)
            shown = "\n  ".join(near or known[:MOST_LISTED])
            more = f"\n  and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else ""
            listing = f"did you mean\n  {shown}" if near else f"it has\n  {shown}{more}"
            by = f" made by m2pt {command}" if command else ""
            raise InputError(f"no run {name!r}{by} in this config; {listing}")
        run = self.runs[name]
        if command is not None and command not in run.commands:
            others = run.commands[1:]
            then = f", followed by m2pt {' and m2pt '.join(others)}" if others else ""
            raise InputError(f"run {name} is made by: m2pt {run.command} {name}{then}")
        return run

    def encoder(self, name: str) -> EncoderSpec:
        """Return the resolved encoder of that name.

        Raises:
            InputError: the config has none, or it cannot be made.
        """
        if name in self.config.encoders and (why := self.config.why_unmade(name)):
            raise InputError(f"encoder {name!r} of {self.source} cannot be made: {why}.")
        return self._find("encoder", self.encoders, name)

    def pretraining_epochs(self, encoder: str) -> tuple[int, int] | None:
        """Return after how many epochs an encoder was taken, and how many its whole pretraining has.

        Random weights count as zero epochs. None for a file, and for a pretraining measured in steps.
        """
        if self.config.encoders[encoder].random:
            return 0, 1
        spec = self.encoders[encoder]
        whole = spec.recipe.training.epochs if isinstance(spec, PretrainingSpec) else None
        if not isinstance(spec, PretrainingSpec) or whole is None:
            return None
        return whole if spec.epoch is None else spec.epoch, whole

    def table(self, name: str) -> Table:
        """Return the table of that name.

        Raises:
            InputError: the config does not list it.
        """
        return self._find("table", self.tables, name)

    def figure(self, name: str) -> Figure:
        """Return the figure of that name.

        Raises:
            InputError: the config does not list it, or none of its cells can be drawn.
        """
        if name in self.not_drawn and name not in self.figures:
            raise self.no_result(name)
        return self._find("figure", self.figures, name)

    def no_result(self, name: str) -> InputError:
        """Return the error for a name that is none of the results."""
        if name in self.not_drawn:
            why = next(iter(self.not_drawn[name].values()))
            return InputError(f"{self.source}: figure {name} is not drawn, since {why}.")
        known = [*self.tables, *self.figures, *([SUMMARY] if self.config.claims is not None else [])]
        return InputError(f"{self.source} has no table or figure {name!r}; it has {', '.join(known)}.")

    def _find(self, what: str, entries: Mapping[str, Found], name: str) -> Found:
        if name not in entries:
            raise InputError(f"no {what} {name!r} in {self.source}; it has {listed(entries)}.")
        return entries[name]

    def cell_runs(self, table: str, row: Row, column: Column) -> tuple[Run, ...]:
        """Return the runs that a cell averages: one for each subset; none if it is not run or left empty."""
        return self._runs_of_cells.get(Place(table, row, column).name, ())

    def empty_cells(self, table: str) -> dict[str, str]:
        """Return the cells of a table that are left empty, and why."""
        return {cell: why for cell, why in self.left_empty.items() if cell.startswith(f"{table}:")}

    @property
    def used_pretrain_seeds(self) -> list[int]:
        """Seeds of the pretrainings that runs build on."""
        return sorted({self.pretrain_seed(seed) for seed in self.config.seeds})

    @property
    def reports(self) -> list[str]:
        """File names of all results: tables, figures and, if the config names claims, the summary."""
        names = [f"{table}.{kind}" for table in self.tables for kind in TABLE_FORMATS]
        names += [f"{figure}.{kind}" for figure in self.figures for kind in FIGURE_FORMATS]
        return names + ([f"{SUMMARY}.md"] if self.config.claims is not None else [])

    def cell_and_baseline(self, table: str, row: Row, column: Column) -> Iterator[Run]:
        """Yield the runs of a cell and those of its baseline's cell, which its gain needs."""
        yield from self.cell_runs(table, row, column)
        baseline = self.table(table).baseline(row)
        if baseline is not None:
            yield from self.cell_runs(table, baseline, column)

    # ---- figures and claims ------------------------------------------------------------------------------

    def _read_figures(self, faults: Faults) -> dict[str, Figure]:
        """Return the config's figures; cells of faulty tables are not checked."""
        figures: dict[str, Figure] = {}
        for path in self.config.figures:
            with faults.noted():
                figure = read_part(Figure, path, self.source)
                if not faults.affect(("tables", name) for name in figure.tables):
                    figures[Path(path).stem] = check_cells(figure, self.tables, path)
        return figures

    def _check_claims(self, path: str, faults: Faults) -> None:
        with faults.noted():
            claims = read_part(Claims, path, self.source)
            if not faults.affect(("tables", name) for name in claims.tables):
                check_comparisons(claims, self.tables, path)

    def _add_figure(self, name: str, figure: Figure) -> None:
        """Add a figure without the cells that cannot be drawn; with none left, it is not drawn."""
        reasons = {cell: self._why_not_drawn(cell, figure.plot) for cell in figure.plot.cell_names()}
        not_drawn = {cell: why for cell, why in reasons.items() if why is not None}
        if not not_drawn:
            self.figures[name] = figure
            return
        self.not_drawn[name] = not_drawn
        if (plot := figure.plot.without(not_drawn)) is not None:
            self.figures[name] = figure.model_copy(update={"plot": plot})

    def _why_not_drawn(self, cell: str, plot: Plot) -> str | None:
        """Return why a cell of a plot cannot be drawn, None if it can."""
        place = locate(self.tables, cell)
        baseline = self.tables[place.table].baseline(place.row) if plot.needs_gain else None
        for row in (place.row, baseline):
            if row is not None and (why := self.left_empty.get(place._replace(row=row).name)):
                return why
        auxiliaries = place.row.run.pathway.auxiliaries if place.row.run and place.row.run.pathway else ()
        for encoder in auxiliaries if plot.needs_epochs else ():
            if self.pretraining_epochs(encoder) is None:
                what = "a file" if self.config.encoders[encoder].file else "pretrained for a number of steps"
                return f"encoder {encoder} is {what}, and the epochs of its pretraining are unknown"
        return None


def _for_snakemake(key: str, value: Any) -> str:
    """Return the word after `--config`; Snakemake strips quotes from its ends and reads the rest as YAML."""
    text = json.dumps(value, ensure_ascii=False)
    return f"{key}= {text} " if isinstance(value, str) else f"{key}={text}"
