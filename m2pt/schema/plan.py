"""A config file resolved: every run that the tables ask for, what it is made of, where it lies.

The workflow's rules and the commands read the same plan, so that a rule's shell line can be pasted anywhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from m2pt.errors import InputError
from m2pt.schema.base import Model, read_yaml, validate
from m2pt.schema.config import MODALITY_OF_LAYOUT, Config
from m2pt.schema.experiments import SCRATCH, Experiment, digest
from m2pt.schema.recipes import PRETRAINING, Finetuning
from m2pt.schema.tables import Column, Row, Table
from m2pt.schema.transfer_recipes import TRANSFER, check_fit

Spec = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One training of a target: its factors, and the resolved spec (factors, recipe, data, inputs)."""

    experiment: Experiment
    spec: Spec

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

    def __init__(self, config: Config, source: str) -> None:
        self.config = config
        self.source = source
        self.results = Path(config.results)
        self._recipes: dict[tuple[str, type], Any] = {}
        self.tables = {
            Path(path).stem: validate(Table, read_yaml(Path(path)), path) for path in config.tables
        }
        self.encoders = {name: self._encoder_spec(name) for name in config.encoders}
        self.runs: dict[str, Run] = {}
        for name, table in self.tables.items():
            for row, column in cells(table):
                self._add(self._experiment(f"tables.{name}", row, column))

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> "Plan":
        """Read the config at `path`; `overrides` replace top-level keys, as `snakemake --config` does."""
        return cls(validate(Config, {**read_yaml(path), **(overrides or {})}, str(path)), str(path))

    def command(self, path: Path, *, again: bool = False) -> str:
        """The command that makes a result; `again` also if Snakemake thinks that it need not."""
        force = f" --forcerun {path}" if again else ""
        return f"snakemake {path}{force} --cores all --configfile {self.source}"

    # ---- digests: what a job was planned with, and what Snakemake compares -------------------------------

    def dataset_digest(self, dataset: str) -> str:
        """Digest of a dataset's spec."""
        return digest(self.dataset_spec(dataset))

    def encoder_digest(self, encoder: str) -> str:
        """Digest of an encoder's spec."""
        return digest(self.encoders[encoder])

    def table_digest(self, table: str) -> str:
        """Digest of a table and of the seeds that fill it."""
        return digest([self.table(table).model_dump(mode="json"), self.config.seeds])

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
        return self.encoder_directory(encoder, self.pretrain_seed(run_seed)) / "encoder.safetensors"

    def pretrain_seed(self, run_seed: int) -> int:
        """Seed of the pretrainings that the run of `run_seed` builds on: they are dealt out in turn."""
        seeds = self.config.pretrain_seeds
        position = self.config.seeds.index(run_seed) if run_seed in self.config.seeds else run_seed
        return seeds[position % len(seeds)]

    def seeded_spec(self, run: Run, run_seed: int) -> Spec:
        """What the run of `run_seed` stores beside its results: its spec and its pretraining seed."""
        return {**run.spec, "pretrain_seed": self.pretrain_seed(run_seed)}

    def run_directory(self, run: str, seed: int) -> Path:
        """Folder of one training of a target."""
        return self.results / "runs" / run / f"seed{seed}"

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

    def table(self, name: str) -> Table:
        """Return the table of that name.

        Raises:
            InputError: the config does not list it.
        """
        if name not in self.tables:
            raise InputError(f"no table {name!r} in this config; its tables are: {', '.join(self.tables)}.")
        return self.tables[name]

    def cell_run(self, table: str, row: Row, column: Column) -> Run | None:
        """Return the run behind a cell, None where the row does not ask for that column."""
        if column.name not in row.columns:
            return None
        return self.runs[self._experiment(f"tables.{table}", row, column).name]

    @cached_property
    def datasets(self) -> list[str]:
        """Names of the datasets that the tables' runs and their encoders read."""
        used = {run.experiment.dataset for run in self.runs.values()}
        pretrained_on = {self.config.encoders[encoder].dataset for encoder in self.used_encoders}
        return [name for name in self.config.datasets if name in used | pretrained_on]

    @cached_property
    def used_encoders(self) -> list[str]:
        """Names of the encoders that the tables' runs start from or attach."""
        used = {run.experiment.target_init for run in self.runs.values()}
        for run in self.runs.values():
            used.update(run.experiment.auxiliaries)
        return [name for name in self.config.encoders if name in used]

    # ---- resolution -------------------------------------------------------------------------------------

    def dataset_spec(self, name: str) -> Spec:
        """Everything that determines what a reader of this dataset sees."""
        return {"name": name, **self.config.datasets[name].model_dump(mode="json")}

    def _recipe(self, path: str, model: type[Model]) -> Any:
        if (path, model) not in self._recipes:
            self._recipes[path, model] = validate(model, read_yaml(Path(path)), path)
        return self._recipes[path, model]

    def _architecture(self, modality: str) -> Spec:
        settings = getattr(self.config.modalities, modality).model_dump(mode="json")
        return {"modality": modality, "backbone": self.config.backbone.model_dump(mode="json"), **settings}

    def _encoder_spec(self, name: str) -> Spec:
        encoder = self.config.encoders[name]
        if encoder.pretrain is None or encoder.dataset is None:
            source = {"random": True} if encoder.random else {"file": encoder.file}
            return {**source, "architecture": self._architecture(encoder.modality)}
        recipe = self._recipe(encoder.pretrain, PRETRAINING[encoder.modality])
        return {
            "task": "masked_autoencoding",
            "dataset": self.dataset_spec(encoder.dataset),
            "architecture": self._architecture(encoder.modality),
            "recipe": recipe.model_dump(mode="json"),
            "threads": self.config.threads,
        }

    def _experiment(self, source: str, row: Row, column: Column) -> Experiment:
        factors = row.run
        if factors is None:
            raise InputError(f"{source}: row {row.method} has cells to run but no run: section.")
        for name in (factors.target_init, *(factors.pathway.auxiliaries if factors.pathway else ())):
            if name not in self.config.encoders and not (name == SCRATCH and name == factors.target_init):
                known = ", ".join(self.config.encoders)
                raise InputError(
                    f"{source}: row {row.method}: no encoder {name!r} in the config; it has {known}."
                )
        if column.task == "classification" and column.mode is not None:
            return Experiment(
                task=column.task,
                dataset=column.dataset,
                mode=column.mode,
                target_init=factors.target_init,
                pathway=factors.pathway,
            )
        if column.dataset not in self.config.transfer:
            raise InputError(
                f"{source}: column {column.name}: the config has no transfer.{column.dataset} section."
            )
        transfer = self.config.transfer[column.dataset]
        from_finetuned = transfer.transfer_from == "finetuned"
        finetuned = Experiment(
            task="classification",
            dataset=column.transfer_from or "",
            mode="tune",
            target_init=factors.target_init,
            pathway=factors.pathway,
        )
        return Experiment(
            task=column.task,
            dataset=column.dataset,
            mode="fix" if transfer.freeze_backbone else "tune",
            target_init=factors.target_init,
            pathway=None if from_finetuned else factors.pathway,
            transfer_from=finetuned if from_finetuned else None,
        )

    def _add(self, experiment: Experiment) -> Run:
        """Resolve an experiment and the one it starts from; equal experiments of two tables are one run."""
        if experiment.name in self.runs:
            return self.runs[experiment.name]
        for dataset in (
            experiment.dataset,
            *([experiment.transfer_from.dataset] if experiment.transfer_from else []),
        ):
            if dataset not in self.config.datasets:
                raise InputError(f"run {experiment.name}: no dataset {dataset!r} in the config.")
        layout = self.config.datasets[experiment.dataset].layout
        inputs: Spec = {name: self.encoders[name] for name in experiment.auxiliaries}
        if experiment.transfer_from is not None:
            inputs["transfer_from"] = self._add(experiment.transfer_from).spec
        elif experiment.target_init != SCRATCH:
            inputs["target_init"] = self.encoders[experiment.target_init]
        spec = {
            "experiment": experiment.model_dump(mode="json"),
            "dataset": self.dataset_spec(experiment.dataset),
            "architecture": self._architecture(MODALITY_OF_LAYOUT[layout]),
            "recipe": self._run_recipe(experiment).model_dump(mode="json"),
            "inputs": inputs,
            "threads": self.config.threads,
        }
        self.runs[experiment.name] = Run(experiment, spec)
        return self.runs[experiment.name]

    def _run_recipe(self, experiment: Experiment) -> Any:
        if experiment.task != "classification":
            path = self.config.transfer[experiment.dataset].recipe
            recipe = self._recipe(path, TRANSFER[experiment.task])
            check_fit(path, recipe, self.config.backbone.depth, self.config.modalities.image)
            return recipe
        if experiment.dataset not in self.config.finetune:
            raise InputError(
                f"run {experiment.name}: the config has no finetune.{experiment.dataset} section."
            )
        recipes = self.config.finetune[experiment.dataset]
        start = SCRATCH if experiment.target_init == SCRATCH else "pretrained"
        return self._recipe(getattr(recipes, f"{start}_{experiment.mode}"), Finetuning)


def cells(table: Table) -> Iterator[tuple[Row, Column]]:
    """Yield the (row, column) pairs of a table that are run."""
    for row in table.rows:
        for column in table.columns:
            if column.name in row.columns:
                yield row, column


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Turn `KEY=YAML` arguments into a mapping.

    Raises:
        InputError: an argument has no `=`, or its value is not YAML.
    """
    overrides = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise InputError(
                f"--set {pair}: give KEY=VALUE, the value in YAML, such as --set 'seeds=[0,1,2]'."
            )
    return overrides
