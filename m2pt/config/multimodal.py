"""Settings of joint training on several modalities in configs and recipes (AGM, arXiv 2308.07686)."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BeforeValidator, Field, create_model, model_validator

from m2pt import catalog
from m2pt.config.architecture import Backbone
from m2pt.config.experiment import Experiment
from m2pt.config.names import Name
from m2pt.config.paths import FilePath
from m2pt.config.recipes import Recipe
from m2pt.config.strict import Strict, nested, validate
from m2pt.errors import InputError, listed
from m2pt.models.multimodal_settings import (
    ConcatSettings,
    MultimodalSettings,
    SumSettings,
    TransformerSettings,
)
from m2pt.ranges import Alpha, Epoch


class Fusions(Strict):
    """Recipe files of a dataset, by the name of a fusion; the recipe says what that fusion is."""

    fusions: Annotated[dict[Name, FilePath], Field(min_length=1)]


class Timed(Strict, ABC):
    """Settings of a method that count epochs; a training that never gets there is refused."""

    @property
    @abstractmethod
    def epochs_needed(self) -> Mapping[str, int]:
        """The epochs that a training must have for a setting to have an effect, by the setting's name."""


class Joint(Strict):
    """The cross-entropy of the joint logits; also used for a single modality."""


class AGM(Timed):
    """Adaptive gradient modulation; see `m2pt.agm.AdaptiveGradientModulation`."""

    alpha: Alpha
    cap: Annotated[float, Gt(0), Le(1000)] | None = None
    floor: Annotated[float, Ge(-1000), Lt(0)] | None = None
    probability_floor: Annotated[float, Gt(0), Lt(1)] | None = None
    direction: Literal["released", "opposite"] = "released"
    window: tuple[Epoch, Epoch | None] = (1, None)
    """First and last epoch in which gradients are modulated; null has no end."""
    after_window: Literal["reset", "stays"] = "reset"
    empty: Literal["omitted", "subtracted"] = "omitted"

    @property
    def epochs_needed(self) -> Mapping[str, int]:
        """The window: neither its first nor its last epoch may be after the training."""
        first, last = self.window
        return {"window": max(first, last or first)}


class OGM(Timed):
    """On-the-fly gradient modulation, without (`ogm`) and with (`ogm_ge`) generalization enhancement."""

    alpha: Alpha
    parameters: Literal["conv", "all"] = "conv"
    """Parameters of the encoders that are modulated."""
    first_epoch: Epoch = 1
    last_epoch: Epoch | None = None

    @property
    def epochs_needed(self) -> Mapping[str, int]:
        """The first and the last epoch that are modulated."""
        return {"first_epoch": self.first_epoch, "last_epoch": self.last_epoch or self.first_epoch}


class MSLR(Timed):
    """Modality-specific learning rates; see `m2pt.agm.methods.mslr`."""

    coefficients: Annotated[dict[Name, Annotated[float, Gt(0), Le(1000)]], Field(min_length=1)]
    strategy: Literal["dynamic", "keep"] = "dynamic"
    memory: Epoch = 5

    @property
    def epochs_needed(self) -> Mapping[str, int]:
        """Of strategy dynamic: the epochs to average over, and one that is compared with them."""
        return {"memory": self.memory + 1} if self.strategy == "dynamic" else {}


class MSES(Timed):
    """Modality-specific early stopping; see `m2pt.agm.methods.mses`."""

    patience: Epoch
    smoothing: Annotated[float, Ge(0), Lt(1)] = 0.6

    @property
    def epochs_needed(self) -> Mapping[str, int]:
        """The best epoch, and those that are waited for."""
        return {"patience": self.patience + 1}


class GradientBlending(Timed):
    """Gradient Blending, online; see `m2pt.agm.methods.gradient_blending`."""

    super_epoch: Epoch = 5

    @property
    def epochs_needed(self) -> Mapping[str, int]:
        """The epochs before the first estimate, and one that has its weights."""
        return {"super_epoch": self.super_epoch + 1}


class Replaced(Strict):
    """Settings of a transformer encoder that replace those of the config."""

    input: dict[Name, Any] = Field(default_factory=dict)
    tokenizer: dict[Name, Any] = Field(default_factory=dict)


def _methods(given: Any) -> Any:
    """Validate each of `methods` with the settings class that the catalog names for it."""
    if not isinstance(given, Mapping):
        return given
    classes = {name: settings_class(name) | None if name in given else Any for name in catalog.METHODS}
    given = {name: {} if value is None else value for name, value in given.items()}
    sections = nested(_sections(tuple(classes.items())), given)
    return {name: section for name in given if (section := getattr(sections, name)) is not None}


@functools.cache  # pydantic takes milliseconds for each class
def _sections(classes: tuple[tuple[str, Any], ...]) -> type[Strict]:
    fields: dict[str, Any] = {name: (kind, None) for name, kind in classes}
    return create_model("Methods", __base__=Strict, **fields)


def settings_class(method: str) -> type[Strict]:
    """Import and return the class of a method's settings.

    Raises:
        InputError: it cannot be imported, is not `Strict`, or lacks the `alpha` that rows may replace.
    """
    entry, owner = catalog.method(method), f"method {method}: settings"
    settings = catalog.load_class(entry.settings, owner, Strict)
    if entry.has_alpha and "alpha" not in settings.model_fields:
        raise InputError(f"{owner}: {entry.settings} has no field alpha, but the entry says has_alpha")
    return settings


class MultimodalClassification(Recipe):
    """Joint training of a classifier on all modalities of a dataset."""

    model: MultimodalSettings
    architecture: dict[Name, Replaced] = Field(default_factory=dict)
    """For encoders of kind transformer: what replaces the config's settings of their modality."""
    head_clip: Annotated[float, Gt(0), Le(1000)] | None = None
    """Clip the norm of all gradients to this if an element of the head's gradient exceeds it."""
    official: Annotated[bool, Field(exclude=True)] = False
    """Give methods other than AGM the head and the clipping of the released code with late fusion: a linear
    layer for each modality instead of one for all, and no clipping. A modality alone is not clipped either.
    It is stored as those two."""
    methods: Annotated[dict[str, Any], BeforeValidator(_methods), Field(min_length=1)]
    """Settings of the methods that tables compare on this dataset and fusion."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.training.epochs is None:
            raise ValueError("training.steps: the epoch is selected on validation; give training.epochs")
        if self.training.ema is not None:
            raise ValueError("training.ema: finetunings and transfers have it; leave it out")
        if self.training.shard:
            raise ValueError("training.shard: joint trainings are not sharded; leave it out")
        for name in self.architecture:
            if name not in self.transformers(tuple(self.model.encoders)):
                raise ValueError(f"architecture.{name}: model.encoders has no transformer of this name")
        return self

    def chosen(self, experiment: Experiment, modalities: Sequence[str]) -> Self:
        """Return the recipe with one method, and with the encoders of the modalities that it reads.

        Raises:
            ValueError: the recipe has no settings of the method or ones that the training is too short for,
                or other encoders than the dataset.
        """
        balancing = experiment.balancing
        if balancing is None or balancing.method not in self.methods:
            method = balancing and balancing.method
            raise ValueError(f"methods: {method} is missing; this recipe has {listed(self.methods)}")
        encoders = self.model.encoders
        if sorted(encoders) != sorted(modalities):
            raise ValueError(f"model.encoders: {listed(encoders)}; the dataset has {listed(modalities)}")
        settings = self.methods[balancing.method]
        if balancing.alpha is not None:
            settings = settings.model_copy(update={"alpha": balancing.alpha})
        if isinstance(settings, Timed):
            self._check_epochs(balancing.method, settings)
        # in the catalog's order: digests ignore that of the recipe, but initial weights depend on it
        used = {name: encoders[name] for name in modalities if name in (balancing.modalities or modalities)}
        for name in balancing.encoders:
            if not isinstance(used[name], TransformerSettings):
                raise ValueError(f"model.encoders.{name}: only a transformer can start from an encoder")
        fusion, head_clip = self.model.fusion, self.head_clip
        if self.official and balancing.method != "agm":
            if len(used) == 1:
                head_clip = None
            elif isinstance(fusion, ConcatSettings):
                fusion, head_clip = SumSettings(kind="sum"), None
        return self.model_copy(
            update={
                "model": replace(self.model, encoders=used, fusion=fusion),
                "methods": {balancing.method: settings},
                "architecture": {name: each for name, each in self.architecture.items() if name in used},
                "head_clip": head_clip,
            }
        )

    def _check_epochs(self, method: str, settings: Timed) -> None:
        epochs = self.training.epochs or 0
        for name, needed in settings.epochs_needed.items():
            if needed > epochs:
                raise ValueError(
                    f"methods.{method}.{name}: has no effect, since it needs {needed} epochs and "
                    f"training.epochs = {epochs}; lower it, or train for longer"
                )

    def check_fit(self, backbone: Backbone, modalities: Mapping[str, Any]) -> None:
        """Check that what `architecture` replaces is valid in the config's section of the modality."""
        for name, replaced in self.architecture.items():
            values = modalities[name].model_dump()
            for part in ("input", "tokenizer"):
                values[part] |= getattr(replaced, part)
            try:
                validate(type(modalities[name]), values, f"architecture.{name}")
            except InputError as error:
                raise ValueError(str(error).removesuffix(".")) from None

    def transformers(self, modalities: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the modalities whose encoder is a transformer; see `Recipe.transformers`."""
        found = (name for name, each in self.model.encoders.items() if isinstance(each, TransformerSettings))
        return {
            name: self.architecture[name].model_dump() if name in self.architecture else {} for name in found
        }
