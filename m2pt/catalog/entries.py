"""The forms of entries of the catalog, and the import of what they name."""

import difflib
import keyword
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from m2pt.errors import InputError, listed, short

Base = TypeVar("Base")

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?")
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
_INTERNAL = re.compile(r"[/\\](torch|pydantic)[/\\]|importlib|<frozen")


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


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that is not among `known`."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {listed(names)}"
    return f"there is no {kind} {short(name, 100)!r}; {hint}"


def place_of(error: BaseException) -> str:
    """Return an error of a module that an entry names, with the last line outside of torch and pydantic."""
    frames = traceback.extract_tb(error.__traceback__)
    named = [frame for frame in frames if not _INTERNAL.search(frame.filename)]
    place = f" ({named[-1].filename}, line {named[-1].lineno})" if named else ""
    return f"{type(error).__name__}: {error}{place}"


def load(path: str, owner: str) -> Any:
    """Import what an entry names.

    Args:
        path: "package.module:Name", or "package.module" for a module.
        owner: the entry and its field, for messages, such as "modality depth: tokenizer".

    Raises:
        InputError: the path has another form, the module cannot be imported, or it has no such name.
    """
    if not (isinstance(path, str) and _PATH.fullmatch(path)):
        raise InputError(
            f"{owner}: must be 'package.module:Name' or 'package.module', got {short(repr(path))}"
        )
    module_name, _, name = path.partition(":")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:  # the module may be anybody's
        raise InputError(f"{owner}: {module_name} cannot be imported: {place_of(error)}") from error
    if name and not hasattr(module, name):
        near = difflib.get_close_matches(name, dir(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{owner}: {module_name} has no {name!r}{hint}")
    return getattr(module, name) if name else module


def load_class(path: str, owner: str, base: type[Base]) -> type[Base]:
    """Import a class that an entry names; see `load`.

    Raises:
        InputError: it cannot be imported, or is no subclass of `base`.
    """
    found = load(path, owner)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{owner}: {path} must be a subclass of {base.__module__}.{base.__qualname__}")
    return found


@contextmanager
def naming(owner: str) -> Iterator[None]:
    """Run code of a module that an entry names, and name the entry in whatever it raises.

    Raises:
        InputError: any exception, with its place; InputErrors stay as they are.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the module may be anybody's
        raise InputError(f"{owner}: {place_of(error)}") from error


def check_name(what: str, name: Any) -> None:
    """Check the name of an entry or of a command: it becomes a key, a section, a rule and an attribute.

    Raises:
        InputError: it has another form.
    """
    if not (isinstance(name, str) and _NAME.fullmatch(name)) or keyword.iskeyword(name):
        raise InputError(
            f"{what} {name!r}: a name has lower-case letters, digits and underscores, begins with a letter "
            "and is no keyword of Python"
        )
