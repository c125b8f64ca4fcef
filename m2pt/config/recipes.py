"""Recipe files: the hyper-parameters of one training, each with its source in a comment of the YAML.

A recipe is composed: the class that the catalog names for a task, or for a modality's masked modeling,
defines the training and the model, and the dataset's layout adds `augmentation` and, where it has one,
`evaluation`.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from pydantic import BaseModel, Field, create_model, model_validator

from m2pt import catalog
from m2pt.config.architecture import MOST_TOKENS, Backbone, Image, ImageInput, PointcloudInput
from m2pt.config.strict import Strict, no_duplicates
from m2pt.errors import InputError
from m2pt.models.settings import (
    AudioClassifierSettings,
    ClassifierSettings,
    DecoderSettings,
    MaskRCNNSettings,
    PartSegmenterSettings,
    SegmenterSettings,
    UPerNetSettings,
)
from m2pt.ranges import Epoch, Fraction, Share, Size, Strength
from m2pt.training.settings import TrainingSettings

if TYPE_CHECKING:
    from m2pt.config.experiment import Experiment


class Groups(Strict):
    """The tokens: `groups` neighborhoods of `group_size` points. No weight depends on either number."""

    groups: Size
    group_size: Size


class Mix(Strict):
    """Mixup, CutMix and label smoothing (timm)."""

    mixup: Strength = 0.0
    cutmix: Strength = 0.0
    switch_prob: Fraction = 0.5
    smoothing: Share = 0.0


class Smoothing(Mix):
    """Label smoothing, for inputs that cannot be mixed."""

    @model_validator(mode="after")
    def _inputs_are_not_mixed(self) -> "Smoothing":
        if self.mixup or self.cutmix:
            raise ValueError("mixup and cutmix mix pictures; this modality takes smoothing alone")
        return self


# ---- recipes: of tasks, and of pretrainings ----------------------------------------------------------------


class Recipe(Strict):
    """Base of all recipes."""

    training: TrainingSettings
    if TYPE_CHECKING:
        augmentation: Any  # of the layout

    @property
    def views(self) -> Any:
        """The layout's `evaluation`: the views in which a sample is evaluated; None for a single one."""
        return getattr(self, "evaluation", None)

    @property
    def num_views(self) -> int:
        """Number of views of a sample in an evaluation."""
        return 1 if self.views is None else math.prod(vars(self.views).values())

    @property
    def samples_per_item(self) -> int:
        """Number of samples that a training draws of each item of the dataset (repeated sampling)."""
        return int(getattr(self.augmentation, "samples", 1))

    @property
    def mixes_pairs(self) -> bool:
        """Whether mixup or CutMix mix the samples of a batch in pairs."""
        mix = getattr(self, "mix", None)
        return mix is not None and (mix.mixup > 0 or mix.cutmix > 0)

    @property
    def starts_with_norm(self) -> bool:
        """Whether the model takes the final norm of the encoder: norm is among its `pretrained_parts`."""
        return False

    def chosen(self, experiment: "Experiment", modalities: Sequence[str]) -> Self:
        """Return the part of the recipe that an experiment on inputs of these modalities depends on.

        Raises:
            ValueError: the recipe lacks something that the experiment needs; the message begins with the key.
        """
        return self

    def transformers(self, modalities: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the modalities with a transformer, and what replaces its settings in the config.

        Args:
            modalities: those of the datasets.

        Returns:
            By modality, the settings `input` and `tokenizer` that this recipe replaces.
        """
        if len(modalities) > 1:
            return {name: {} for name in modalities}
        parts = [part for part in ("input", "tokenizer") if hasattr(self, part)]
        finer = {part: getattr(self, part).model_dump(mode="json") for part in parts}
        return dict.fromkeys(modalities, finer)

    def check_fit(self, backbone: Backbone, modalities: Mapping[str, Any]) -> None:
        """Check the recipe against the config's backbone and its sections of the model's modalities.

        Raises:
            ValueError: they do not fit; the message begins with the recipe's key.
        """


class _OfClassifier(Recipe):
    """Base of the recipes of classifiers."""

    model: ClassifierSettings = ClassifierSettings()

    @property
    def starts_with_norm(self) -> bool:
        """Whether the class token is classified; averaged tokens have a norm of their own."""
        return self.model.pool == "token"


class Classification(_OfClassifier):
    """One label per sample."""

    model: ClassifierSettings = ClassifierSettings()
    mix: Mix = Mix()


class MultilabelClassification(_OfClassifier):
    """Several labels per sample."""

    model: AudioClassifierSettings = AudioClassifierSettings()


class PointSegmentation(Recipe):
    """A class for each point of a cloud; `input` and `tokenizer` replace those of the config."""

    input: PointcloudInput
    tokenizer: Groups
    model: SegmenterSettings

    @property
    def starts_with_norm(self) -> bool:
        """True: the norm acts on the features of each tap."""
        return True

    @model_validator(mode="after")
    def _enough_points(self) -> "PointSegmentation":
        for name in ("groups", "group_size"):
            if getattr(self.tokenizer, name) > self.input.points:
                raise ValueError(
                    f"tokenizer.{name} {getattr(self.tokenizer, name)} exceeds input.points "
                    f"{self.input.points}; give at most that"
                )
        return self

    def check_fit(self, backbone: Backbone, modalities: Mapping[str, Any]) -> None:
        """Check that the taps ascend and end with the last block."""
        taps, last = list(self.model.taps), backbone.depth - 1
        if taps != sorted(set(taps)) or taps[-1] != last:
            raise ValueError(f"model.taps = {taps}: must be ascending block numbers from 0, the last {last}")


class PartSegmentation(PointSegmentation):
    """A part for each point of a shape of known category."""

    model: PartSegmenterSettings


class Detection(Recipe):
    """Mask R-CNN; `input` is the size that images are resized and padded to."""

    input: ImageInput
    model: MaskRCNNSettings
    drop_path: Share = 0.0

    def check_fit(self, backbone: Backbone, modalities: Mapping[str, Any]) -> None:
        """Check that patches fill the image."""
        _check_image(self.input, *modalities.values())


class SemanticSegmentation(Recipe):
    """UperNet; `input` is the size of the training crop."""

    input: ImageInput
    model: UPerNetSettings
    drop_path: Share = 0.0

    @model_validator(mode="after")
    def _windows_overlap(self) -> "SemanticSegmentation":
        if self.model.window_stride > self.input.image_size:
            raise ValueError(
                f"model.window_stride {self.model.window_stride} leaves gaps between windows "
                f"of image_size {self.input.image_size}; give at most that"
            )
        return self

    def check_fit(self, backbone: Backbone, modalities: Mapping[str, Any]) -> None:
        """Check that patches fill the crop and that the taps are ascending blocks."""
        _check_image(self.input, *modalities.values())
        taps = list(self.model.taps)
        if taps != sorted(set(taps)) or taps[-1] >= backbone.depth:
            raise ValueError(
                f"model.taps = {taps}: must be ascending block numbers from 0 to {backbone.depth - 1}"
            )


def _check_image(image: ImageInput, modality: Image) -> None:
    size, patch = image.image_size, modality.tokenizer.patch_size
    if size % patch:
        raise ValueError(f"input.image_size = {size}: must be a multiple of the patch size {patch}")
    if (size // patch) ** 2 > MOST_TOKENS:
        raise ValueError(
            f"input.image_size = {size}: gives more than {MOST_TOKENS} patches of {patch} pixels"
        )


class Pretraining(Recipe):
    """A pretraining, and the earlier epochs to save the weights of.

    So a study of the auxiliary's quality needs no further pretraining.
    """

    keep_epochs: tuple[Epoch, ...] = ()

    @model_validator(mode="after")
    def _kept_epochs_happen(self) -> "Pretraining":
        for epoch in self.keep_epochs:
            if epoch > (self.training.epochs or 0):
                raise ValueError(
                    f"keep_epochs: epoch {epoch} is never reached (epochs: {self.training.epochs})"
                )
        no_duplicates("keep_epochs", self.keep_epochs)
        return self

    @model_validator(mode="after")
    def _is_not_averaged(self) -> "Pretraining":
        if self.training.ema is not None:
            raise ValueError("training.ema: finetunings and transfers have it; leave it out")
        return self


class MaskedAutoencoding(Pretraining):
    """A masked autoencoder: MAE, VideoMAE, AudioMAE, Point-MAE."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)]
    decoder: DecoderSettings
    drop_path: Share = 0.0
    """Stochastic depth of the last block of encoder and decoder; of the four, Point-MAE alone has it."""


class MaskedLanguageModeling(Pretraining):
    """Masked-token prediction (BERT)."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.15
    drop_path: Share = 0.0


class SupervisedPretraining(Pretraining):
    """A classifier; its encoder is kept."""

    model: ClassifierSettings = ClassifierSettings()


# ---- composition -------------------------------------------------------------------------------------------

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def task_recipe(task: str, layout: str) -> type[Recipe]:
    """Return the class of the recipes for a task on datasets of a layout.

    Raises:
        InputError: there is no such entry, or its class cannot be imported.
    """
    base = _task_base(task)
    mix, views = "mix" in base.model_fields, catalog.layout(layout).evaluation
    return _compose(base, layout, catalog.augmentation(layout, pretraining=False), mix=mix, views=views)


def masked_recipe(layout: str) -> type[Pretraining]:
    """Return the class of the recipes for masked modeling on datasets of a layout.

    Raises:
        InputError: there is no such entry, or its class cannot be imported.
    """
    modality = catalog.layout(layout).modality
    if modality is None:
        raise InputError(f"layout {layout} has several modalities; an encoder is pretrained on one")
    path = catalog.modality(modality).masked.recipe
    base = catalog.load_class(path, f"modality {modality}: masked.recipe", Pretraining)
    return _compose(base, layout, catalog.augmentation(layout, pretraining=True))


def supervised_recipe(layout: str) -> type[Pretraining]:
    """Return the class of the recipes for supervised pretraining on datasets of a layout.

    Raises:
        InputError: it has no labels that a classifier can be pretrained on; or as `masked_recipe`.
    """
    task = catalog.pretraining_task(catalog.layout(layout).labels)
    if task is None:
        raise InputError(f"layout {layout} has no labels for objective: supervised; give objective: masked")
    base = _task_base(task)
    augmentation = catalog.augmentation(layout, pretraining=True)
    return _compose(SupervisedPretraining, layout, augmentation, mix="mix" in base.model_fields)


def default_augmentation(layout: str) -> Any:
    """Return the default settings of a layout's augmentation in a finetuning.

    Raises:
        InputError: there is no such entry, or its class cannot be imported.
    """
    path = catalog.augmentation(layout, pretraining=False)
    return _with_default(path, f"layout {layout}: augmentation")()


def _task_base(task: str) -> type[Recipe]:
    path, owner = catalog.task(task).recipe, f"task {task}: recipe"
    base = catalog.load_class(path, owner, Recipe)
    if "model" not in base.model_fields:
        raise InputError(f"{owner}: {path} must have a field model")
    return base


def _compose(
    base: type[AnyRecipe], layout: str, augmentation: str, *, mix: bool = False, views: str | None = None
) -> type[AnyRecipe]:
    entry = catalog.layout(layout)
    modalities = [catalog.modality(name) for name in entry.modalities]
    mixes = len(modalities) == 1 and modalities[0].mixup
    paths = {"augmentation": augmentation, "evaluation": views, "input": entry.input}
    parts: dict[str, type] = {"mix": Mix if mixes else Smoothing} if mix else {}
    for name, path in paths.items():
        if path is not None:
            parts[name] = _with_default(path, f"layout {layout}: {name}")
    with catalog.naming(f"layout {layout}: {', '.join(parts)}"):
        return _composed(base, tuple(parts.items()))


@functools.cache  # pydantic takes milliseconds for each class
def _composed(base: type[AnyRecipe], parts: tuple[tuple[str, type], ...]) -> type[AnyRecipe]:
    fields: dict[str, Any] = {name: (kind, kind()) for name, kind in parts}
    return create_model(base.__name__, __base__=base, __module__=__name__, **fields)


def _with_default(path: str, owner: str) -> type:
    settings: type = catalog.load(path, owner)
    if not (isinstance(settings, type) and (is_dataclass(settings) or issubclass(settings, BaseModel))):
        raise InputError(f"{owner}: {path} must be a dataclass or a pydantic model")
    try:
        settings()
    except Exception as error:  # the class may be anybody's
        raise InputError(f"{owner}: every field of {path} must have a default: {error}") from error
    return settings
