"""The forms of entries of the catalog."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from m2pt.errors import listed

_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")


@dataclass(frozen=True, eq=False)
class MaskedModeling:
    """Masked modeling of a modality: its self-supervised pretraining.

    Attributes:
        recipe: class of the recipe files, a `m2pt.config.recipes.Pretraining`; layouts add `augmentation`.
        model: function that builds the model from an architecture and the recipe's own fields, such as
            `m2pt.models.masked_autoencoder.build_masked_autoencoder`.
    """

    recipe: str
    model: str


MASKED_AUTOENCODING = MaskedModeling(
    recipe="m2pt.config.recipes:MaskedAutoencoding",
    model="m2pt.models.masked_autoencoder:build_masked_autoencoder",
)
MASKED_LANGUAGE_MODELING = MaskedModeling(
    recipe="m2pt.config.recipes:MaskedLanguageModeling",
    model="m2pt.models.masked_language_model:build_masked_language_model",
)


@dataclass(frozen=True, eq=False)
class Plane:
    """A 2-D input (B, C, H, W), which a ConvNeXt can read.

    Attributes:
        channels: number of channels.
        sides: keys of the modality's `input` settings that hold height and width, or the side of a square.
    """

    channels: int
    sides: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_names("sides", self.sides)


@dataclass(frozen=True, eq=False, kw_only=True)
class Modality:
    """A kind of input, and how it becomes tokens.

    Attributes:
        settings: class of the section `modalities.NAME` of a config; has the fields `input` and `tokenizer`.
        tokenizer: subclass of `m2pt.modalities.tokenizer.Tokenizer`.
        masked: masked modeling, for encoders with `objective: masked`.
        plane: shape of the input if it is a plane; other modalities cannot have `body: convnext`.
        mixup: whether mixup and CutMix apply, which need inputs (B, ..., H, W).
        color: color of the modality's curves in figures, #rrggbb.
    """

    settings: str
    tokenizer: str
    masked: MaskedModeling = MASKED_AUTOENCODING
    plane: Plane | None = None
    mixup: bool = True
    color: str | None = None

    def __post_init__(self) -> None:
        if self.color is not None and not (isinstance(self.color, str) and _COLOR.fullmatch(self.color)):
            raise ValueError(f"color must be #rrggbb, such as #0072B2, got {self.color!r}")


@dataclass(frozen=True, eq=False)
class Published:
    """The official training split of a dataset, or of a subset of it.

    Attributes:
        items: number of items in an epoch.
        source: source of this number.
        num_classes: number of classes, if it differs from the layout's.
    """

    items: int
    source: str
    num_classes: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Layout:
    """The files of a dataset, and the contents of its samples.

    Attributes:
        modalities: modalities of the inputs; a sample of several holds its inputs by modality.
        labels: kind of the labels; tasks that need this kind can be trained on the layout.
        reader: module with the members of `m2pt.datasets.layouts.LayoutModule`.
        miniature: module with those of `m2pt.datasets.layouts.MiniatureModule`; the reader's by default.
        augmentation: class of a recipe's `augmentation`; every field has a default.
        pretraining_augmentation: the same for pretraining, if it differs.
        evaluation: class of a recipe's `evaluation`, if samples are evaluated in several views.
        input: class of a recipe's `input`, the reader's keyword arguments, if there are several modalities.
            Those of a single one are in the config.
        num_classes: number of classes of the official dataset, by subset if there are subsets.
        subsets: whether the dataset has parts that are trained on one by one, each with its own classes.
        published: sizes of official training splits, by the name of a dataset in config/paper.yaml, or
            "name/subset".
        transposed: modalities whose reader swaps the two sides of a plane, as where spectrograms begin with
            the frequency; tokenizers take the sides in the order of `Plane.sides`.
        manifest_has_counts: whether a manifest holds the number of items of an epoch.
        held_out: key of the recipe's `input` with the share of the training list that is for validation.
            Published and miniature sizes are then those of the whole list, and no manifest has the count.
        window: key of the modality's `input` that holds the number of counted units per item.
        frames: folder below the dataset's, with frames of videos; the workflow extracts them if the config
            says where the videos are.
        archives: official zip archives that `m2pt data prepare` unpacks, and the folder below the dataset's
            that the content of each belongs to; see `m2pt.datasets.preparation.archives`.
        preparation: module with a function `prepare` that `m2pt data prepare` calls instead, if there is more
            to do; see `m2pt.datasets.layouts.PreparationModule`.
        preparation_options: keywords of that function, of those that `m2pt data prepare` has.
        shards: whether the dataset can also be read from tar files, into which `m2pt data pack` packs it.
        skippable: whether corrupt samples may be skipped in training: each can be read by itself, and the
            reader's `check` returns the problems of those of the training split as
            `m2pt.datasets.corrupt.CorruptSample`.
    """

    modalities: tuple[str, ...]
    labels: str | None
    reader: str
    miniature: str | None = None
    augmentation: str
    pretraining_augmentation: str | None = None
    evaluation: str | None = None
    input: str | None = None
    num_classes: int | Mapping[str, int] | None = None
    subsets: bool = False
    published: Mapping[str, Published] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    manifest_has_counts: bool = True
    held_out: str | None = None
    window: str | None = None
    frames: str | None = None
    archives: Mapping[str, str] = field(default_factory=dict)
    preparation: str | None = None
    preparation_options: tuple[str, ...] = ()
    shards: bool = False
    skippable: bool = False

    def __post_init__(self) -> None:
        _check_names("modalities", self.modalities)
        _check_names("transposed", self.transposed, least=0)
        if unknown := set(self.transposed) - set(self.modalities):
            raise ValueError(f"transposed has {listed(sorted(unknown))}, which is not among the modalities")

    @property
    def modality(self) -> str | None:
        """The modality of the inputs, None if there are several."""
        return self.modalities[0] if len(self.modalities) == 1 else None


@dataclass(frozen=True, eq=False, kw_only=True)
class FollowUp:
    """A command that follows a training, as a job of its own.

    Attributes:
        command: name of the command and of its Snakemake rule.
        help: what it does, for `m2pt --help`.
        output: file that it writes into the run's folder.
        input: file in the run's folder, if the command is `m2pt NAME INPUT OUTPUT`; without it the command is
            `m2pt NAME RUN --seed N`.
        module: module of the command, with `add_arguments` and `run`; `m2pt.commands.NAME` by default.
        launchable: whether `m2pt launch` can run it in several processes.
    """

    command: str
    help: str
    output: str
    input: str | None = None
    module: str | None = None
    launchable: bool = True

    def __post_init__(self) -> None:
        _check_help(self.help)


@dataclass(frozen=True, eq=False, kw_only=True)
class Kind:
    """A kind of run: the experiments of its cells, its recipes, its model and its commands.

    Its name in the catalog is also that of the command and of the Snakemake rule that train a run, and that
    of its section in a config.

    Attributes:
        label: what `m2pt plan` calls its models, such as "finetuned".
        help: what the command does, for `m2pt --help`.
        module: module of the command, with `add_arguments` and `run`; `m2pt.commands.NAME` by default.
        launchable: whether `m2pt launch` can train it in several processes.
        outputs: files that the training exports; the last one is written last.
        followed_by: the commands after the training. The last file of all is the evaluation.
        several_modalities: whether a run may have inputs of several modalities.
        column: keys that a table's column must have, of `mode`, `transfer_from` and `fusion`; the others are
            refused.
        settings: class of an entry of the config section `NAME`, which has one for each dataset; None if it
            has no section, or one that `m2pt.config.config.Config` declares.
        experiments: function that yields the experiments of a cell, as
            `m2pt.plan.experiments.finetune_experiments` does.
        recipe: function that returns the recipe file of an experiment, as
            `m2pt.plan.experiments.finetune_recipe` does.
        model: function that builds the model of a run, as `m2pt.build.finetune_model` does.
        interface: protocol of the tasks of this kind.
    """

    label: str
    help: str
    module: str | None = None
    launchable: bool = True
    outputs: tuple[str, ...]
    followed_by: tuple[FollowUp, ...] = ()
    several_modalities: bool = False
    column: tuple[str, ...] = ()
    settings: str | None = None
    experiments: str
    recipe: str
    model: str
    interface: str

    def __post_init__(self) -> None:
        _check_help(self.help)
        _check_names("outputs", self.outputs)
        _check_names("followed_by", self.followed_by, form=FollowUp, least=0)
        _check_names("column", self.column, least=0)
        _check_names("the files of outputs and followed_by", self.files)
        if not any(name.endswith(".safetensors") for name in self.files):
            raise ValueError(f"outputs must name a file of weights, .safetensors, got {self.outputs!r}")
        written = set(self.outputs)
        for each in self.followed_by:
            if each.input is not None and each.input not in written:
                raise ValueError(
                    f"followed_by: {each.command} reads {each.input}, which nothing before it writes"
                )
            written.add(each.output)

    @property
    def files(self) -> tuple[str, ...]:
        """Files of a run, in the order in which they are written."""
        return (*self.outputs, *(each.output for each in self.followed_by))

    @property
    def weights(self) -> str:
        """File with the weights of the model that is evaluated."""
        return [name for name in self.files if name.endswith(".safetensors")][-1]


@dataclass(frozen=True, eq=False, kw_only=True)
class Balancing:
    """A method of joint training on several modalities.

    Attributes:
        settings: class of its settings in the `methods` of a recipe.
        build: function of (model, settings, seed) that returns a `m2pt.agm.BalancingMethod`.
        has_alpha: whether a row of a table may replace the recipe's `alpha`, which the settings must have.
    """

    settings: str
    build: str
    has_alpha: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """A task that a target is trained for.

    Attributes:
        kind: kind of the task's runs, by name.
        labels: kind of the labels that the task needs.
        metrics: names of the metrics, in percent; higher is better. The task's `summarize` returns them all.
        task: class with loss, metrics and model; has the kind's interface.
        recipe: class of the recipe files, a `m2pt.config.recipes.Recipe` with a field `model`; layouts add
            `augmentation` and `evaluation`.
        pretrains: whether the task trains the classifiers of `objective: supervised`.
    """

    kind: str
    labels: str
    metrics: tuple[str, ...]
    task: str
    recipe: str
    pretrains: bool = False

    def __post_init__(self) -> None:
        _check_names("metrics", self.metrics)


def _check_names(field: str, given: Any, *, form: type = str, least: int = 1) -> None:
    """Raise an error unless a field of an entry is a tuple without duplicates."""
    if not (isinstance(given, tuple) and all(isinstance(each, form) for each in given)):
        what = "names" if form is str else f"{form.__name__} entries"
        raise TypeError(f"{field} must be a tuple of {what}, got {given!r}")
    if len(given) < least:
        raise ValueError(f"{field} must not be empty")
    if len(set(given)) < len(given):
        raise ValueError(f"{field} has duplicates: {given!r}")


def _check_help(help: Any) -> None:
    if not (isinstance(help, str) and help):
        raise ValueError(f"help must say what the command does, got {help!r}")
