"""Specs: everything that a result depends on. Files store them, and results are compared by them.

The stored form leaves out how a training is executed (`EXECUTION`): more loader processes or rarer
checkpoints change no bit of a result, and must neither invalidate it nor run it again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from m2pt.config.architecture import Backbone, ConvNeXt
from m2pt.config.config import Body, Objective
from m2pt.config.dataset import Dataset
from m2pt.config.experiment import Experiment
from m2pt.config.recipes import Pretraining, Recipe
from m2pt.training.settings import ADDED, EXECUTION

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
        for key in ("full_check", "videos", "prepare", "packed_from"):  # the data is the same
            del values[key]
        if not self.settings.skips_corrupt:
            del values["corrupt_samples"]
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
        norm_eps: epsilon of the LayerNorms; None: that of the modality's method.
    """

    modality: str | None
    sizes: Backbone | ConvNeXt
    input: Mapping[str, Any] | None = None
    tokenizer: Mapping[str, Any] | None = None
    norm_eps: float | None = None

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
        eps = {} if self.norm_eps is None else {"norm_eps": self.norm_eps}
        return {**start, "backbone": {**sizes, **eps}, **known}


@dataclass(frozen=True)
class ExternalSpec:
    """An encoder not trained by this workflow: random weights, or a file of which `parts` are read.

    The norm is read if the file has one; whether a target needs it changes nothing for the others.
    """

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
        if len(self.modalities) == 1:
            of_models: Stored = {"architecture": self.architecture.stored}
        else:
            of_models = {"architectures": {name: each.stored for name, each in self.architectures.items()}}
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
    """Return what files store of a recipe: not settings of the execution, nor later ones that are unset."""
    values = recipe.model_dump(mode="json")
    training = {key: value for key, value in values["training"].items() if key not in EXECUTION}
    augmentation = values["augmentation"]
    return {
        **values,
        "training": without_unset(training, ADDED),
        "augmentation": without_unset(augmentation, getattr(recipe.augmentation, "ADDED", {})),
    }


def without_unset(values: Stored, added: Mapping[str, object]) -> Stored:
    """Return settings without those that came later and have the value at which nothing changes."""
    return {key: value for key, value in values.items() if not (key in added and value == added[key])}
