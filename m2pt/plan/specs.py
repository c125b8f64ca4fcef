"""Specs: everything that a result depends on. Files store them, and results are compared by them.

The stored form leaves out how a training is executed (`EXECUTION`): more loader processes or rarer
checkpoints change no bit of a result, and must neither invalidate it nor run it again.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

from m2pt import catalog
from m2pt.config.architecture import Backbone, ConvNeXt
from m2pt.config.config import Body, Config, Dataset, Encoder, Objective
from m2pt.config.experiment import Experiment
from m2pt.config.recipes import Pretraining, Recipe, masked_recipe, supervised_recipe, task_recipe
from m2pt.config.strict import read_part
from m2pt.errors import InputError, listed
from m2pt.training.settings import EXECUTION

Stored = dict[str, Any]
"""A spec as files store it and as digests are computed from it: plain JSON values."""


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset, or one subset of it, as a reader sees it.

    Args:
        name: its name in the config.
        settings: its section of the config.
        subset: the part that is trained on, if it has any.
    """

    name: str
    settings: Dataset
    subset: str | None = None

    @property
    def layout(self) -> str:
        """Layout of its files."""
        return self.settings.layout

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of its inputs."""
        return self.settings.modalities

    @property
    def num_classes(self) -> int:
        """Number of classes, of the subset if there is one."""
        if self.subset is not None:
            return (self.settings.subsets or {})[self.subset]
        return self.settings.num_classes or 0

    @property
    def key(self) -> str:
        """Its name, with that of the subset if there is one."""
        return self.name if self.subset is None else f"{self.name}/{self.subset}"

    @cached_property
    def stored(self) -> Stored:
        """What files store of it."""
        values = {"name": self.name, **self.settings.model_dump(mode="json")}
        del values["full_check"]
        if self.subset is not None:
            values |= {"subset": self.subset, "num_classes": self.num_classes}
            del values["subsets"]
        return values


@dataclass(frozen=True)
class Architecture:
    """Sizes of an encoder, and how its input becomes tokens.

    Args:
        modality: of the input; None for blocks of which nothing else is known.
        sizes: of the blocks; their class tells a transformer from a ConvNeXt.
        input: settings of the input; None for blocks alone.
        tokenizer: settings of the tokenizer; None for blocks alone and for a ConvNeXt.
    """

    modality: str | None
    sizes: Backbone | ConvNeXt
    input: Mapping[str, Any] | None = None
    tokenizer: Mapping[str, Any] | None = None

    @property
    def body(self) -> Body:
        """Kind of the blocks."""
        return "convnext" if isinstance(self.sizes, ConvNeXt) else "transformer"

    @property
    def has_tokenizer(self) -> bool:
        """Whether it is a whole transformer, not only blocks."""
        return self.tokenizer is not None

    @cached_property
    def stored(self) -> Stored:
        """What files store of it; the arguments of `m2pt.models.bodies.build_body`."""
        sizes = self.sizes.model_dump(mode="json")
        start: Stored = {"modality": self.modality}
        parts = {"input": self.input, "tokenizer": self.tokenizer}
        known = {name: dict(settings) for name, settings in parts.items() if settings is not None}
        if self.body == "convnext":
            return {**start, "body": self.body, **known, "convnext": sizes}
        return {**start, "backbone": sizes, **known}


@dataclass(frozen=True)
class ExternalSpec:
    """An encoder not trained by this workflow: random weights, or a file of which `parts` are read."""

    architecture: Architecture
    file: str | None = None
    parts: tuple[str, ...] = ()

    @cached_property
    def stored(self) -> Stored:
        """What files store of it."""
        source = {"random": True} if self.file is None else {"file": self.file, "parts": list(self.parts)}
        return {**source, "architecture": self.architecture.stored}


@dataclass(frozen=True)
class PretrainingSpec:
    """A pretrained encoder; `epoch` is the epoch that it was taken after, None for the last."""

    objective: Objective
    dataset: DatasetSpec
    architecture: Architecture
    recipe: Pretraining
    threads: int
    epoch: int | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modality of the dataset."""
        return self.dataset.modalities

    def reader_input(self, dataset: DatasetSpec | None = None) -> dict[str, Any]:
        """Return the input settings for the reader of the dataset."""
        return dict(self.architecture.input or {})

    @property
    def task(self) -> str:
        """Name of the objective in files."""
        return "masked_modelling" if self.objective == "masked" else "supervised"

    @cached_property
    def stored(self) -> Stored:
        """What files store of it."""
        return {
            "task": self.task,
            "dataset": self.dataset.stored,
            "architecture": self.architecture.stored,
            "recipe": stored_recipe(self.recipe),
            "threads": self.threads,
            **({} if self.epoch is None else {"epoch": self.epoch}),
        }


@dataclass(frozen=True)
class RunSpec:
    """A run: what is trained on what, how, and from which weights.

    Args:
        experiment: its factors.
        dataset: what it is trained on.
        architectures: of the target's transformers by modality, with the inputs that the recipe asks for.
        recipe: how it is trained.
        inputs: specs of the weights that it reads: `target_init` or `transfer_from`, and auxiliaries by name.
        threads: threads of a process: other numbers give other bits.
        other_datasets: what it is trained on besides `dataset`.
    """

    experiment: Experiment
    dataset: DatasetSpec
    architectures: Mapping[str, Architecture]
    recipe: Recipe
    inputs: "Mapping[str, Spec]"
    threads: int
    other_datasets: tuple[DatasetSpec, ...] = ()

    @property
    def datasets(self) -> tuple[DatasetSpec, ...]:
        """All datasets that it is trained on, the evaluated one first."""
        return (self.dataset, *self.other_datasets)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of its datasets."""
        return modalities_of(self.datasets)

    @property
    def architecture(self) -> Architecture:
        """Architecture of the target of a run on one modality."""
        (architecture,) = self.architectures.values()
        return architecture

    def reader_input(self, dataset: DatasetSpec | None = None) -> dict[str, Any]:
        """Return the input settings for the reader of a dataset, by default of the evaluated one."""
        dataset = dataset or self.dataset
        if len(dataset.modalities) > 1:
            return dict(vars(self.recipe.input)) if hasattr(self.recipe, "input") else {}
        (modality,) = dataset.modalities
        return dict(self.architectures[modality].input or {})

    @cached_property
    def stored(self) -> Stored:
        """What files store of it."""
        others = [each.stored for each in self.other_datasets]
        architectures = {name: each.stored for name, each in self.architectures.items()}
        if len(self.modalities) == 1:
            of_models: Stored = {"architecture": self.architecture.stored}
        else:
            of_models = {"architectures": architectures}
        return {
            "experiment": self.experiment.model_dump(mode="json"),
            "dataset": self.dataset.stored,
            **({"other_datasets": others} if others else {}),
            **of_models,
            "recipe": stored_recipe(self.recipe),
            "inputs": {role: spec.stored for role, spec in self.inputs.items()},
            "threads": self.threads,
        }


EncoderSpec = ExternalSpec | PretrainingSpec
Spec = EncoderSpec | RunSpec


def modalities_of(datasets: Iterable[DatasetSpec]) -> tuple[str, ...]:
    """Return the modalities of datasets, each once."""
    return tuple(dict.fromkeys(chain.from_iterable(each.modalities for each in datasets)))


def stored_recipe(recipe: Recipe) -> Stored:
    """Return what files store of a recipe: all but what only concerns the execution."""
    values = recipe.model_dump(mode="json")
    training = {key: value for key, value in values["training"].items() if key not in EXECUTION}
    return {**values, "training": training}


class Specs:
    """Resolves a config's names into specs, reading each recipe once.

    Args:
        config: the config.
        target_encoders: names of the encoders that targets start from. Of a file for one of them, more than
            the blocks is read.
        source: the config's file, for messages.
    """

    def __init__(self, config: Config, target_encoders: Collection[str], source: str) -> None:
        self.config = config
        self._source = source
        self._target_encoders = target_encoders
        self._recipes: dict[tuple[Any, ...], Recipe] = {}

    def dataset(self, name: str, subset: str | None = None) -> DatasetSpec:
        """Return the spec of a dataset, or of one subset of it."""
        return DatasetSpec(name, self.config.datasets[name], subset)

    def architecture(self, modality: str, body: Body = "transformer") -> Architecture:
        """Return the sizes of an encoder, and how its input becomes tokens.

        Raises:
            InputError: the config has no section for this modality.
        """
        settings = self._section(modality).model_dump(mode="json")
        if body == "convnext":
            return Architecture(modality, self._sizes(body), settings["input"])
        return Architecture(modality, self._sizes(body), settings["input"], settings["tokenizer"])

    def _sizes(self, body: Body) -> Backbone | ConvNeXt:
        sizes = self.config.convnext if body == "convnext" else self.config.backbone
        assert sizes is not None  # checked by Config
        return sizes

    def _section(self, modality: str) -> Any:
        if modality not in self.config.modalities:
            raise InputError(f"{self._source}: {self.config.missing_section(modality)}.")
        return self.config.modalities[modality]

    def encoder(self, name: str) -> EncoderSpec:
        """Resolve an encoder.

        Raises:
            InputError: its recipe is wrong, or does not keep the epoch that is asked for; or a target starts
                from a file of unknown modality.
        """
        encoder = self.config.encoders[name]
        if encoder.file is not None:
            return self._file(name, encoder, encoder.file)
        if encoder.epoch_of is not None:
            return self._kept_epoch(name, encoder.epoch_of, encoder.epoch or 0)
        architecture = self.architecture(str(encoder.modality), encoder.body)
        return ExternalSpec(architecture) if encoder.random else self._pretrained(encoder, architecture)

    def _file(self, name: str, encoder: Encoder, file: str) -> ExternalSpec:
        modality = encoder.modality if encoder.modality in self.config.modalities else None
        if name in self._target_encoders and modality is None:
            raise InputError(
                f"{self._source}: encoders.{name}: targets start from it, so that it needs their modality; "
                f"give modality: one of {listed(self.config.modalities)}."
            )
        if modality is None:
            architecture = Architecture(encoder.modality, self._sizes(encoder.body))
        else:
            architecture = self.architecture(modality, encoder.body)
        parts = ("tokenizer", "blocks", "norm") if name in self._target_encoders else ("blocks",)
        return ExternalSpec(architecture, file, parts)

    def _pretrained(self, encoder: Encoder, architecture: Architecture) -> PretrainingSpec:
        dataset = self.dataset(str(encoder.dataset))
        compose = masked_recipe if encoder.objective == "masked" else supervised_recipe
        recipe = self._recipe(str(encoder.pretrain), compose, dataset.layout)
        assert isinstance(recipe, Pretraining)
        return PretrainingSpec(encoder.objective, dataset, architecture, recipe, self.config.threads)

    def _kept_epoch(self, name: str, source: str, epoch: int) -> PretrainingSpec:
        spec = self.encoder(source)
        assert isinstance(spec, PretrainingSpec)  # checked by Config
        kept = spec.recipe.keep_epochs
        if epoch not in kept:
            raise InputError(
                f"{self._source}: encoders.{name}: epoch = {epoch}: {self.config.encoders[source].pretrain} "
                f"keeps the epochs {listed(kept)}; give one of them, or add it to keep_epochs there."
            )
        return replace(spec, epoch=epoch)

    def run(self, experiment: Experiment, inputs: Mapping[str, Spec]) -> RunSpec:
        """Resolve an experiment whose input weights have the specs `inputs`.

        Raises:
            InputError: the recipe is missing from the config, or does not fit.
        """
        for name in experiment.datasets:
            if name not in self.config.datasets:
                known = listed(self.config.datasets)
                raise self._error(experiment, f"no dataset {name!r} in the config; it has {known}")
            if experiment.datasets.count(name) > 1:
                raise self._error(experiment, f"duplicate dataset {name!r}; each may be given once")
        dataset = self.dataset(experiment.dataset, experiment.subset)
        others = tuple(self.dataset(name) for name in experiment.other_datasets)
        modalities = modalities_of((dataset, *others))
        if len(modalities) > 1 and not experiment.kind.several_modalities:
            raise self._error(
                experiment,
                f"{experiment.task} is trained on one modality, but its data has {' and '.join(modalities)}",
            )
        body: Body = "transformer"
        start = self.config.encoders.get((experiment.transfer_from or experiment).target_init)
        if start is not None:
            body = start.body
            if start.modality not in modalities:
                raise self._error(
                    experiment,
                    f"it starts from an encoder of modality {start.modality}, but {experiment.dataset} is a "
                    f"dataset of modality {' and '.join(modalities)}",
                )
        recipe = self._run_recipe(experiment, modalities, body)
        architectures = {
            name: self._finer(self.architecture(name, body), settings)
            for name, settings in recipe.transformers(modalities).items()
        }
        threads = self.config.threads
        return RunSpec(experiment, dataset, architectures, recipe, inputs, threads, others)

    def _finer(self, architecture: Architecture, settings: Mapping[str, Any]) -> Architecture:
        """Replace settings of the config: a dense task may read finer inputs than a pretraining."""
        changes: dict[str, Any] = {
            part: {**getattr(architecture, part), **values} for part, values in settings.items()
        }
        return replace(architecture, **changes)

    def _run_recipe(self, experiment: Experiment, modalities: Sequence[str], body: Body) -> Recipe:
        dataset = self.config.datasets[experiment.dataset]
        if catalog.layout(dataset.layout).labels != catalog.task(experiment.task).labels:
            raise self._error(
                experiment, f"{experiment.task} cannot be trained on a dataset of layout {dataset.layout}"
            )
        recipe_of = catalog.load(experiment.kind.recipe, f"kind {experiment.command}: recipe")
        try:
            path = recipe_of(self.config, experiment, body)
        except InputError as error:
            raise self._error(experiment, str(error)) from None
        recipe = self._recipe(path, task_recipe, experiment.task, dataset.layout)
        try:
            sections = {name: self._section(name) for name in recipe.transformers(modalities)}
            recipe.check_fit(self.config.backbone, sections)
        except ValueError as error:
            raise InputError(f"{path}: {error}.") from None
        return recipe

    def _recipe(self, path: str, compose: Callable[..., type[Recipe]], *names: str) -> Recipe:
        """Read a recipe file once for each class of recipes that `compose` gives for the names of entries."""
        key = (path, compose, *names)
        if key not in self._recipes:
            self._recipes[key] = read_part(compose(*names), path, self._source)
        return self._recipes[key]

    def _error(self, experiment: Experiment, fault: str) -> InputError:
        return InputError(f"{self._source}: run {experiment.name}: {fault}.")
