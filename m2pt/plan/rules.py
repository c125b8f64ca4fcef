"""The plan as Snakemake's rules see it: inputs, params and wildcard constraints."""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from m2pt import catalog
from m2pt.errors import InputError, joined
from m2pt.formats.documents import read_text, read_yaml
from m2pt.plan.claims import claims_digest, missing_cells, runs_of_result
from m2pt.plan.dvc import check_fetched, is_pretrained_here
from m2pt.plan.jobs import pretrainings, used_encoders
from m2pt.plan.overrides import overrides
from m2pt.plan.plan import Plan
from m2pt.plan.sources import Step, steps
from m2pt.run_files import CHECKSUMS, ENCODER, EVALUATION, SUMMARY

MINIATURE = "A miniature config shows that the pipeline works; it does not reproduce the paper's numbers."
"""Last sentence of a caption in the report, unless the config has the paper's scale."""


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


class SnakemakeJob(Protocol):
    """The part of a Snakemake job that is used here."""

    rule: RuleOfJob
    wildcards: Wildcards


def checked(path: str) -> str:
    """Return the path of a config file after checking that it is valid YAML; Snakemake checks less.

    Raises:
        InputError: it is not a YAML mapping.
    """
    read_yaml(Path(path))
    return path


class Rules:
    """A plan, as functions of Snakemake's wildcards.

    A digest given as `params` makes Snakemake run a rule again exactly when a value behind it changes, and
    the command refuses to work if the config no longer says what the workflow was planned with.

    Raises:
        InputError: the config, a recipe or a table is wrong, or more than one config file is given.
    """

    def __init__(self, config_files: Sequence[str | Path], config: Mapping[str, Any]) -> None:
        if len(config_files) != 1:
            given = ", ".join(map(str, config_files))
            raise InputError(f"configs are never merged: give one --configfile, not {given}.")
        path = Path(config_files[0])  # Snakemake makes a --configfile absolute; people paste the short form
        path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        self.plan = Plan.load(path, overrides(config, read_yaml(path)))
        self._arguments = shlex.join(self.plan.arguments)

    def arguments(self, wildcards: Wildcards, output: object) -> str:
        """Arguments that give a command this config.

        Taking `output` makes it, for Snakemake, a derived parameter, which does not make a rule run again:
        another file name or one more seed changes nothing that is already made. What a rule's result depends
        on is in its digest.
        """
        return self._arguments

    def launch(self, wildcards: Wildcards, output: object, resources: Any) -> str:
        """Return the words between `m2pt` and a command that start it in several processes.

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
        """Return how a result was made, for its caption; a derived parameter, as in `arguments`."""
        path = Path(output.made)
        made = read_text(path).strip() if path.exists() else ""
        return made if self.plan.config.paper_scale else f"{made} {MINIATURE}".strip()

    def figure_caption(self, wildcards: Wildcards, output: object) -> str:
        """Return a figure's caption and how to read its marks; a derived parameter, as in `arguments`."""
        figure = self.plan.figure(wildcards.figure)
        return f"{figure.caption} {figure.plot.marks}"

    # ---- wildcard constraints: one rule makes one kind of file ------------------------------------------

    def miniatures(self) -> str:
        """Return the pattern of the datasets that are built."""
        return _any_of(name for name, dataset in self.plan.config.datasets.items() if dataset.miniature)

    def own_datasets(self) -> str:
        """Return the pattern of the datasets on the user's disk."""
        return _any_of(name for name, dataset in self.plan.config.datasets.items() if dataset.root)

    def datasets_made_by(self, rule: str) -> str:
        """Return the pattern of the datasets that have a step of this name."""
        datasets = self.plan.config.datasets
        return _any_of(name for name in datasets if any(each.rule == rule for each in steps(self.plan, name)))

    def pretrained_encoders(self) -> str:
        """Return the pattern of the encoders that are pretrained here."""
        return _any_of(name for name, each in self.plan.config.encoders.items() if each.is_trained_here)

    def imported_encoders(self) -> str:
        """Return the pattern of the encoders from DVC, a file, random weights or an epoch of another encoder.

        Encoders from DVC that were trained in this very folder are left out: they are in place, and importing
        them again would rerun everything that depends on them.
        """
        others = [name for name in self.plan.encoders if not self.plan.config.encoders[name].is_trained_here]
        return _any_of(name for name in others if not is_pretrained_here(self.plan, name))

    def runs(self, command: str) -> str:
        """Return the pattern of the runs of which the command of this name makes files."""
        return _any_of(run.name for run in self.plan.runs.values() if command in run.commands)

    def tables(self) -> str:
        """Return the pattern of the config's tables."""
        return _any_of(self.plan.tables)

    def figures(self) -> str:
        """Return the pattern of the config's figures."""
        return _any_of(self.plan.figures)

    # ---- params of rules: digests, and the commands that make datasets ----------------------------------

    def step(self, rule: str) -> Callable[[Wildcards], str]:
        """Return the words after `m2pt` of the step of this name."""
        return lambda wildcards: next(
            each.command for each in steps(self.plan, wildcards.dataset) if each.rule == rule
        )

    def dataset_digest(self, wildcards: Wildcards) -> str:
        """Return the digest of a dataset's spec."""
        return self.plan.dataset_digest(wildcards.dataset)

    def encoder_digest(self, wildcards: Wildcards) -> str:
        """Return the digest of an encoder's spec."""
        return self.plan.encoder_digest(wildcards.encoder)

    def run_digest(self, wildcards: Wildcards) -> str:
        """Return the digest of a run's spec."""
        return self.plan.runs[wildcards.run].digest

    def table_digest(self, wildcards: Wildcards) -> str:
        """Return the digest of a table and of its seeds."""
        return self.plan.table_digest(wildcards.table)

    def figure_digest(self, wildcards: Wildcards) -> str:
        """Return the digest of a figure, of its tables and of their seeds."""
        return self.plan.figure_digest(wildcards.figure)

    def claims_digest(self, wildcards: Wildcards) -> str:
        """Return the digest of the claims and of their tables."""
        return claims_digest(self.plan)

    # ---- inputs -----------------------------------------------------------------------------------------

    def videos(self, wildcards: Wildcards) -> str:
        """Return the folder of a dataset's videos."""
        return str(self.plan.config.datasets[wildcards.dataset].videos)

    def made_before(self, rule: str) -> Callable[[Wildcards], list[str]]:
        """Return a function that gives the marker of a dataset's step before the one of this name, if any."""

        def marker(wildcards: Wildcards) -> list[str]:
            before: list[str] = []
            for step in steps(self.plan, wildcards.dataset):
                if not before:
                    self._check_source(wildcards.dataset, step)
                if step.rule == rule:
                    break
                before = [str(step.makes)]
            return before

        return marker

    def _check_source(self, dataset: str, step: Step) -> None:
        """Check that a dataset's first step has what it reads, or has been made.

        Raises:
            InputError: it lacks both.
        """
        key = step.key.partition(".")[0]
        if not (step.reads.is_dir() or step.makes.exists()):
            raise InputError(
                f"{self.plan.source}: datasets.{dataset}.{step.key} = {str(step.reads)!r}: there is no such "
                f"folder; give the path of one, or leave out {key} if the dataset is made."
            )

    def encoder_source(self, wildcards: Wildcards) -> list[str]:
        """Return the files that an encoder is imported from; none for random weights.

        For an encoder from DVC, its checksums: Snakemake compares a file this small by content, while DVC
        gives checkpoints a new modification time whenever it checks them out.

        Raises:
            InputError: it has not been imported before, and its file is missing or DVC has not pulled it.
        """
        name, seed = wildcards.encoder, int(wildcards.seed)
        encoder = self.plan.config.encoders[name]
        if encoder.source == "dvc":
            if not (self.plan.encoder_directory(name, seed) / ENCODER).exists():
                check_fetched(self.plan, name, seed)
            return [str(self.plan.encoder_checkpoint(name, seed) / CHECKSUMS)]
        if encoder.epoch_of is not None:
            directory = self.plan.encoder_directory(encoder.epoch_of, seed)
            return [str(directory / ENCODER)]
        if encoder.file is None:
            return []
        if not (Path(encoder.file).exists() or (self.plan.encoder_directory(name, seed) / ENCODER).exists()):
            raise self._missing_files()
        return [encoder.file]

    def _missing_files(self) -> InputError:
        """Return an error that names the missing files of all encoders in use, not only the first."""
        encoders = self.plan.config.encoders
        files = {name: encoders[name].file for name in used_encoders(self.plan)}
        return joined(
            InputError(
                f"{self.plan.source}: encoders.{name}.file = {file!r}: there is no such file; give the path "
                "of a checkpoint."
            )
            for name, file in files.items()
            if file is not None and not Path(file).exists()
        )

    def encoder_manifest(self, wildcards: Wildcards) -> str:
        """Return the manifest of the dataset that an encoder is pretrained on."""
        return str(self.plan.manifest(str(self.plan.config.encoders[wildcards.encoder].dataset)))

    def run_manifests(self, wildcards: Wildcards) -> list[str]:
        """Return the manifests of a run's datasets."""
        return [str(self.plan.manifest(name)) for name in self.plan.runs[wildcards.run].experiment.datasets]

    def run_weights(self, wildcards: Wildcards) -> list[str]:
        """Return the weights that a run starts from and attaches."""
        return [str(path) for path in self.plan.input_weights(wildcards.run, int(wildcards.seed)).values()]

    def table_evaluations(self, wildcards: Wildcards) -> list[str]:
        """Return the result files of a table's cells, all seeds."""
        return self._evaluations(runs_of_result(self.plan, wildcards.table))

    def figure_evaluations(self, wildcards: Wildcards) -> list[str]:
        """Return the result files of the cells that a figure shows, and of their baselines."""
        return self._evaluations(runs_of_result(self.plan, wildcards.figure))

    def claims_evaluations(self, wildcards: Wildcards) -> list[str]:
        """Return the result files of the cells that the claims compare, and of their baselines."""
        return self._evaluations(runs_of_result(self.plan, SUMMARY))

    def _evaluations(self, runs: Iterable[str]) -> list[str]:
        directories = [
            self.plan.run_directory(name, seed) for name in runs for seed in self.plan.config.seeds
        ]
        return [str(directory / EVALUATION) for directory in directories]

    def preflight(self, jobs: Iterable[SnakemakeJob]) -> str:
        """Return the command that checks these jobs' inputs and models before the first of them starts.

        Empty if nothing will be trained. Your own datasets, and encoders from files or DVC, are checked here
        although jobs of their own check them again: those jobs may only start after hours of training. A
        dataset that is still to be made is only checked by its job.
        """
        jobs = list(jobs)
        if not any(job.rule.name in ("pretrain_encoder", *catalog.KINDS) for job in jobs):
            return ""
        making = {step.rule for name in self.plan.config.datasets for step in steps(self.plan, name)}
        waiting = {job.wildcards.dataset for job in jobs if job.rule.name in making}
        checked = {job.wildcards.dataset for job in jobs if job.rule.name == "check_dataset"}
        datasets = sorted(checked - waiting)
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
        """Return all results: tables, figures and, if the config names claims, the summary."""
        return [str(self.plan.results / name) for name in self.plan.reports]

    def multimodal_reports(self, wildcards: Wildcards) -> list[str]:
        """Return the tables and figures of joint trainings on several modalities, in every format.

        Raises:
            InputError: the config has none.
        """
        names = [name for name in (*self.plan.tables, *self.plan.figures) if self._has("multimodal", name)]
        if not names:
            raise InputError(f"{self.plan.source}: no table has a run with balancing.")
        paths = map(Path, self.plan.reports)
        return [str(self.plan.results / path) for path in paths if path.stem in names]

    def _has(self, kind: str, result: str) -> bool:
        """Return whether a table or figure needs runs of a kind."""
        return any(self.plan.runs[run].command == kind for run in runs_of_result(self.plan, result))

    def encoders(self) -> list[str]:
        """Return the weights of every pretrained encoder that the tables need."""
        folders = [self.plan.encoder_directory(*each) for each in pretrainings(self.plan)]
        return [str(folder / ENCODER) for folder in folders]

    def models(self) -> list[str]:
        """Return the result of every run that the tables need; the merged model is beside it."""
        return self._evaluations(self.plan.runs)

    def unknown_names(self) -> str:
        """Return the pattern of names that are neither a table nor a figure of this config."""
        known = _any_of([*self.plan.tables, *self.plan.figures, SUMMARY])
        return rf"(?!(?:{known})\.)[^/.]+"

    def refuse(self, wildcards: Wildcards) -> list[str]:
        """Refuse a result that the config does not have.

        Raises:
            InputError: always.
        """
        raise self.plan.no_result(wildcards.name)

    def missing_cells(self) -> list[str]:
        """Return which cells are left empty or not drawn, and why: a sentence for each reason."""
        return missing_cells(self.plan)


def _number_of_gpus(gpus: int | str) -> int:
    """Return the number in a resource such as 4, "4" or "a100:4".

    Raises:
        InputError: there is none.
    """
    number = str(gpus).rpartition(":")[2]
    if not number.isdecimal():
        raise InputError(f"the resource gpus is {gpus!r}: give a number, or TYPE:NUMBER such as a100:4")
    return int(number)


def _gpus_among(gres: str) -> int:
    """Return the number of GPUs in Slurm's generic resources, such as "gpu:a100:4" or "gpu:2,shard:1"."""
    given = [each.split(":") for each in gres.split(",")]
    return sum(int(words[-1]) if words[-1].isdecimal() else 1 for words in given if words[0] == "gpu")


def _any_of(names: Iterable[str]) -> str:
    """Return a regular expression that matches exactly these names, or nothing if there are none."""
    return "|".join(re.escape(name) for name in names) or "(?!)"
