"""What the workflow's rules ask of a plan: inputs and digests as functions of Snakemake's wildcards."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from m2pt.errors import InputError
from m2pt.formats.documents import read_text, read_yaml
from m2pt.schema.behind import SUMMARY, runs_behind
from m2pt.schema.claims import claims_digest
from m2pt.schema.plan import Plan
from m2pt.schema.pulled import CHECKSUMS, check_pulled, is_from_here

MINIATURE = "A miniature config shows that the pipeline works; it does not reproduce the paper's numbers."
"""Ends a caption in the report, unless the config is of the paper's scale."""

TRAINING = ("pretrain_encoder", "finetune", "transfer")
"""Rules whose jobs take long."""


class Wildcards(Protocol):
    """Wildcard values by name; which ones there are depends on the rule."""

    dataset: str
    encoder: str
    run: str
    seed: str
    table: str
    figure: str
    name: str


class RuleOfJob(Protocol):
    """A job's rule."""

    name: str


class Job(Protocol):
    """A job of Snakemake's, as far as it matters here."""

    rule: RuleOfJob
    wildcards: Wildcards


def checked(path: str) -> str:
    """Return the path of a config that Snakemake, which reads it with less care, is about to read.

    Raises:
        InputError: it is no mapping of keys to values in YAML.
    """
    read_yaml(Path(path))
    return path


class Rules:
    """A plan seen from the workflow.

    A digest given as `params` makes Snakemake run a rule again exactly when a value behind it changes, and
    the command refuses to work if the config no longer says what the workflow was planned with.

    Raises:
        InputError: the config, a recipe or a table is wrong, or more than one config file is given.
    """

    def __init__(self, config_files: Sequence[str | Path], config: Mapping[str, Any]) -> None:
        if len(config_files) != 1:
            given = ", ".join(map(str, config_files))
            raise InputError(f"a config is complete by itself: give one --configfile, not {given}.")
        path = Path(config_files[0])  # Snakemake makes a --configfile absolute; people paste the short form
        path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        in_file = read_yaml(path)
        overrides = {key: value for key, value in config.items() if in_file.get(key) != value}
        self.plan = Plan.load(path, overrides)
        self._arguments = shlex.join(self.plan.arguments)

    def arguments(self, wildcards: Wildcards, output: object) -> str:
        """Arguments that give a command this config.

        Taking `output` makes it, for Snakemake, a derived parameter, which does not make a rule run again:
        another file name or one more seed changes nothing that is already made. What a rule's result depends
        on is in its digest.
        """
        return self._arguments

    def launch(self, wildcards: Wildcards, output: object, resources: Any) -> str:
        """The words between `m2pt` and a command that start it in several processes; none for a single one.

        The resources `nodes` (default 1) and `processes`, on each node (default: the number in `gpus`, such
        as 4 or "a100:4", or in `gres`, such as "gpu:a100:4", or else 1), say how many. A derived parameter,
        as in `arguments`.
        """
        nodes = int(resources.get("nodes", 1))
        gpus = _number_of_gpus(resources.get("gpus", 0)) or _gpus_among(resources.get("gres", ""))
        processes = int(resources.get("processes", 0)) or gpus or 1
        if nodes == processes == 1:
            return ""
        return f"launch --nodes {nodes} --processes {processes} "

    def made(self, wildcards: Wildcards, output: Any) -> str:
        """How a result was made, for its caption in the report; a derived parameter, as in `arguments`."""
        path = Path(output.made)
        made = read_text(path).strip() if path.exists() else ""
        return made if self.plan.config.paper_scale else f"{made} {MINIATURE}".strip()

    def figure_caption(self, wildcards: Wildcards, output: object) -> str:
        """Caption of a figure and how to read its marks; a derived parameter, as in `arguments`."""
        figure = self.plan.figure(wildcards.figure)
        return f"{figure.caption} {figure.plot.marks}"

    # ---- wildcard constraints: one rule makes one kind of file ------------------------------------------

    def miniatures(self) -> str:
        """Datasets that are built."""
        return _any_of(name for name, dataset in self.plan.config.datasets.items() if dataset.miniature)

    def own_datasets(self) -> str:
        """Datasets that lie on the user's disk."""
        return _any_of(name for name, dataset in self.plan.config.datasets.items() if dataset.root)

    def pretrained_encoders(self) -> str:
        """Encoders that are pretrained here."""
        return _any_of(name for name, each in self.plan.config.encoders.items() if each.is_trained_here)

    def imported_encoders(self) -> str:
        """Encoders that come by DVC, are a file, random weights or a kept epoch of another.

        Those that come by DVC and were trained in this very folder are in place, and no rule makes them: to
        take them from `checkpoints` would run all that is built on them again.
        """
        others = [name for name, each in self.plan.config.encoders.items() if not each.is_trained_here]
        return _any_of(name for name in others if not is_from_here(self.plan, name))

    def finetuned_runs(self) -> str:
        """Runs that are finetuned, merged and evaluated."""
        return _any_of(run.name for run in self.plan.runs.values() if not run.experiment.is_transfer)

    def transfer_runs(self) -> str:
        """Runs that transfer to a dense task."""
        return _any_of(run.name for run in self.plan.runs.values() if run.experiment.is_transfer)

    def tables(self) -> str:
        """Tables of the config."""
        return _any_of(self.plan.tables)

    def figures(self) -> str:
        """Figures of the config."""
        return _any_of(self.plan.figures)

    # ---- digests: the params of rules -------------------------------------------------------------------

    def dataset_digest(self, wildcards: Wildcards) -> str:
        """Digest of a dataset's spec."""
        return self.plan.dataset_digest(wildcards.dataset)

    def encoder_digest(self, wildcards: Wildcards) -> str:
        """Digest of an encoder's spec."""
        return self.plan.encoder_digest(wildcards.encoder)

    def run_digest(self, wildcards: Wildcards) -> str:
        """Digest of a run's spec."""
        return self.plan.runs[wildcards.run].digest

    def table_digest(self, wildcards: Wildcards) -> str:
        """Digest of a table and of the seeds that fill it."""
        return self.plan.table_digest(wildcards.table)

    def figure_digest(self, wildcards: Wildcards) -> str:
        """Digest of a figure, of the tables behind it and of the seeds that fill them."""
        return self.plan.figure_digest(wildcards.figure)

    def claims_digest(self, wildcards: Wildcards) -> str:
        """Digest of the claims and of the tables behind them."""
        return claims_digest(self.plan)

    # ---- inputs -----------------------------------------------------------------------------------------

    def encoder_source(self, wildcards: Wildcards) -> list[str]:
        """What an imported encoder is taken from; random weights are taken from nothing.

        Of one that comes by DVC, the checksums: Snakemake compares the content of so small a file, while DVC
        gives a checkpoint another date whenever it puts it in place.

        Raises:
            InputError: it comes by DVC, has not been pulled, and has not been imported before either.
        """
        name, seed = wildcards.encoder, int(wildcards.seed)
        encoder = self.plan.config.encoders[name]
        if encoder.source == "dvc":
            if not (self.plan.encoder_directory(name, seed) / "encoder.safetensors").exists():
                check_pulled(self.plan, name, seed)
            return [str(self.plan.encoder_checkpoint(name, seed) / CHECKSUMS)]
        if encoder.epoch_of is not None:
            directory = self.plan.encoder_directory(encoder.epoch_of, seed)
            return [str(directory / "encoder.safetensors")]
        return [encoder.file] if encoder.file is not None else []

    def encoder_manifest(self, wildcards: Wildcards) -> str:
        """Manifest of the dataset that an encoder is pretrained on."""
        return str(self.plan.manifest(str(self.plan.config.encoders[wildcards.encoder].dataset)))

    def run_manifest(self, wildcards: Wildcards) -> str:
        """Manifest of a run's dataset."""
        return str(self.plan.manifest(self.plan.runs[wildcards.run].experiment.dataset))

    def run_weights(self, wildcards: Wildcards) -> list[str]:
        """Weights that a run starts from and attaches."""
        return [str(path) for path in self.plan.input_weights(wildcards.run, int(wildcards.seed)).values()]

    def table_evaluations(self, wildcards: Wildcards) -> list[str]:
        """Result files behind a table's cells, all seeds."""
        return self._evaluations(wildcards.table)

    def figure_evaluations(self, wildcards: Wildcards) -> list[str]:
        """Result files behind the cells that a figure shows and their baselines."""
        return self._evaluations(wildcards.figure)

    def claims_evaluations(self, wildcards: Wildcards) -> list[str]:
        """Result files behind the cells that the claims compare and their baselines."""
        return self._evaluations(SUMMARY)

    def _evaluations(self, result: str) -> list[str]:
        names = [run.name for run in runs_behind(self.plan, result)]
        directories = [
            self.plan.run_directory(name, seed) for name in names for seed in self.plan.config.seeds
        ]
        return [str(directory / "evaluation.json") for directory in directories]

    def preflight(self, jobs: Iterable[Job]) -> str:
        """The command that checks, before the first of these jobs, what they are given and what they train.

        Empty if nothing is to be trained. Datasets that are yours and encoders that are files or come by DVC
        are looked at here although jobs of their own do it again: these may come after hours of training.
        """
        jobs = list(jobs)
        if not any(job.rule.name in TRAINING for job in jobs):
            return ""
        datasets = sorted({job.wildcards.dataset for job in jobs if job.rule.name == "check_dataset"})
        imported = {job.wildcards.encoder for job in jobs if job.rule.name == "import_encoder"}
        given = {
            name for name, each in self.plan.config.encoders.items() if each.file or each.source == "dvc"
        }
        encoders = sorted(imported & given)
        words = ["m2pt", "check", *self.plan.arguments]
        words += ["--datasets", *datasets] if datasets else []
        words += ["--encoders", *encoders] if encoders else []
        return shlex.join(words)

    # ---- targets ----------------------------------------------------------------------------------------

    def reports(self) -> list[str]:
        """Everything that is printed: tables, figures and, if the config names claims, the summary."""
        return [str(self.plan.results / name) for name in self.plan.reports]

    def encoders(self) -> list[str]:
        """Every pretrained encoder that the tables need."""
        folders = [self.plan.encoder_directory(*each) for each in self.plan.pretrainings]
        return [str(folder / "encoder.safetensors") for folder in folders]

    def models(self) -> list[str]:
        """The result of every run that the tables need; the merged model lies beside it."""
        folders = [self.plan.run_directory(*each) for each in self.plan.trainings]
        return [str(folder / "evaluation.json") for folder in folders]

    def unknown_names(self) -> str:
        """Names of results that are no table and no figure of this config."""
        known = _any_of([*self.plan.tables, *self.plan.figures, SUMMARY])
        return rf"(?!(?:{known})\.)[^/.]+"

    def refuse(self, wildcards: Wildcards) -> list[str]:
        """Say which tables and figures there are, of one that is not.

        Raises:
            InputError: always.
        """
        known = ", ".join([*self.plan.tables, *self.plan.figures])
        raise InputError(f"{self.plan.source} has no table or figure {wildcards.name!r}; it has {known}.")


def _number_of_gpus(gpus: int | str) -> int:
    """The number in a resource such as 4, "4" or "a100:4".

    Raises:
        InputError: there is none.
    """
    number = str(gpus).rpartition(":")[2]
    if not number.isdecimal():
        raise InputError(f"the resource gpus is {gpus!r}: give a number, or TYPE:NUMBER such as a100:4")
    return int(number)


def _gpus_among(gres: str) -> int:
    """The number of GPUs in Slurm's generic resources, such as "gpu:a100:4" or "gpu:2,shard:1"."""
    given = [each.split(":") for each in gres.split(",")]
    return sum(int(words[-1]) if words[-1].isdecimal() else 1 for words in given if words[0] == "gpu")


def _any_of(names: Iterable[str]) -> str:
    """Regular expression that matches exactly these names; of no names, one that matches nothing."""
    return "|".join(re.escape(name) for name in names) or "(?!)"
