"""The config file: models, data and sizes of a workflow. See config/README.md."""

import functools
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, create_model, model_validator

from m2pt import catalog
from m2pt.config.architecture import Backbone, ConvNeXt
from m2pt.config.dataset import Dataset
from m2pt.config.experiment import SCRATCH
from m2pt.config.faults import Entry, Faults
from m2pt.config.names import Name
from m2pt.config.paths import FilePath, InputFile, MadeFolder, check_places, check_result_name
from m2pt.config.strict import Strict, as_sentence, nested, no_duplicates, validate_rest
from m2pt.errors import InputError, listed
from m2pt.ranges import Epoch, Seed
from m2pt.run_files import SUMMARY

RESERVED = (SCRATCH, "target_init", "transfer_from")
"""No names of encoders: what a row starts from in their place, and the roles of a run's inputs."""

Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]


Objective = Literal["masked", "supervised"]
Body = Literal["transformer", "convnext"]


class Encoder(Strict):
    """Blocks to start a target from or to attach as an auxiliary.

    They are pretrained (`dataset` and `pretrain`), read from a `file`, initialized at `random`, or taken from
    another encoder after an epoch that its recipe keeps (`epoch_of` and `epoch`).
    """

    modality: Name | None = None
    """Modality of the input. A `file` that is only used as an auxiliary may have any or none: only its blocks
    are read."""
    dataset: Name | None = None
    """Dataset to pretrain on."""
    pretrain: FilePath | None = None
    """Recipe of the pretraining."""
    objective: Objective = "masked"
    """Loss of the pretraining: the modality's masked modeling, or classification with labels."""
    source: Literal["train", "dvc"] = "train"
    """`dvc` takes a pretrained encoder from `checkpoints`. It must have been made with this dataset and
    recipe."""
    body: Body = "transformer"
    """The transformer of `backbone`, or the ConvNeXt of `convnext`."""
    file: InputFile | None = None
    """Checkpoint to read."""
    norm: bool = True
    """Whether the file has the encoder's final norm. Models finetuned to average their tokens have none: with
    false, cells of targets that start with that norm stay empty."""
    random: bool = False
    """Initialize at random, differently for every seed."""
    epoch_of: Name | None = None
    """Another encoder; its recipe must keep `epoch`. Of a file or random weights none is kept: cells that
    need one stay empty."""
    epoch: Epoch | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Encoder":
        sources = (self.pretrain is not None, self.file is not None, self.random, self.epoch_of is not None)
        if sum(sources) != 1:
            raise ValueError(
                "give exactly one of pretrain (a recipe), file (a checkpoint), random: true and epoch_of"
            )
        if self.file is None and not self.norm:
            raise ValueError("norm: false describes a file; leave it out")
        if self.modality is None and self.file is None:
            raise ValueError("modality is required unless file is only used as an auxiliary")
        if (self.pretrain is None) != (self.dataset is None):
            raise ValueError("pretrain and dataset must be given together")
        if self.source == "dvc" and self.pretrain is None:
            raise ValueError("source: dvc requires pretrain and dataset, which identify the weights")
        if (self.epoch_of is None) != (self.epoch is None):
            raise ValueError(
                "epoch_of (an encoder) and epoch (one that its recipe keeps) must be given together"
            )
        if self.body == "convnext" and self.pretrain is not None and self.objective == "masked":
            raise ValueError("a convnext has no masked pretraining; give objective: supervised")
        return self

    @property
    def entries(self) -> list[Entry]:
        """Entries of the config that it needs, other encoders left out."""
        named = (("datasets", self.dataset), ("modalities", self.modality))
        found = [(section, name) for section, name in named if name is not None]
        return [*found, ("convnext", "")] if self.body == "convnext" else found

    @property
    def is_trained_here(self) -> bool:
        """Whether this workflow pretrains the encoder."""
        return self.pretrain is not None and self.source == "train"


class FinetuneRecipes(Strict):
    """Recipe files of a dataset, by initialization of the target and by mode.

    `tune` finetunes all weights, `fix` freezes the linear weights of the blocks. Recipes that no table needs
    may be left out.
    """

    pretrained_tune: FilePath | None = None
    pretrained_fix: FilePath | None = None
    scratch_tune: FilePath | None = None
    scratch_fix: FilePath | None = None
    convnext_tune: FilePath | None = None


class Transfer(Strict):
    """How models are transferred to a dataset."""

    recipe: FilePath
    transfer_from: Literal["finetuned", "pretrained"] = "finetuned"
    """Start from the merged finetuned model, or from the pretrained encoder with its pathways."""
    freeze_backbone: bool = False
    """Train only the new layers, and the scales of pathways."""


class _Modalities(Strict):
    """The section `modalities`; `_sections` adds a field for each modality of the catalog."""


def _sections(given: Any) -> Any:
    """Validate each section of `modalities` with the settings class that the catalog names for it."""
    if not isinstance(given, Mapping):
        return given
    settings: dict[str, Any] = {
        name: (settings_class(name) | None if name in given else Any, None) for name in catalog.MODALITIES
    }
    sections = nested(create_model("Modalities", __base__=_Modalities, **settings), given)
    return {name: section for name in given if (section := getattr(sections, name)) is not None}


def settings_class(modality: str) -> Any:
    """Import and return the class of a modality's settings.

    Raises:
        InputError: it cannot be imported, or lacks a field.
    """
    path, owner = catalog.modality(modality).settings, f"modality {modality}: settings"
    settings = catalog.load(path, owner)
    lacking = sorted({"input", "tokenizer"} - getattr(settings, "model_fields", {}).keys())
    if lacking:
        raise InputError(f"{owner}: {path} lacks {listed(lacking)}")
    return settings


class Misfit(NamedTuple):
    """What does not fit together in a config: a sentence, and the entries involved, first the one to mend."""

    fault: str
    entries: tuple[Entry, ...] = ()


def _raised_by(check: Callable[..., None], *arguments: Any) -> Iterator[Misfit]:
    try:
        check(*arguments)
    except ValueError as error:
        yield Misfit(str(error))


class Config(Strict):
    """A config file. It must be complete: configs are never merged.

    Each key is valid on its own; `misfits` are what does not fit together.
    """

    results: MadeFolder = "results"
    """Folder for all results."""
    checkpoints: MadeFolder = "checkpoints"
    """Folder of the files that DVC moves between machines."""
    paper_scale: bool = False
    """Whether the recipes are the paper's: only then may a table claim that a gain was reproduced."""
    seeds: Seeds = (0,)
    """Seeds of finetuning and transfer."""
    pretrain_seeds: Seeds = (0,)
    """Seeds of pretraining, assigned to `seeds` in turn."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of one training; part of a result's identity."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backbone: Backbone
    convnext: ConvNeXt | None = None
    modalities: Annotated[dict[str, Any], BeforeValidator(_sections)]
    """Input size and tokenizer of each modality, by its name in `m2pt.catalog`."""
    datasets: dict[Name, Dataset]
    encoders: dict[Name, Encoder]
    target_encoders: dict[Name, Name] = Field(default_factory=dict)
    """Encoders that targets start from, by the name in `target_init` of tables, where the two differ.
    In the paper the video target is pretrained on Kinetics-400, the video auxiliary on Kinetics-700."""
    finetune: dict[Name, FinetuneRecipes]
    """Recipes by dataset."""
    transfer: dict[Name, Transfer] = Field(default_factory=dict)
    """How models are transferred, by dataset."""
    tables: Annotated[tuple[FilePath, ...], Field(min_length=1)]
    """Tables to write: they decide which models are trained."""
    figures: tuple[FilePath, ...] = ()
    claims: FilePath | None = None
    """The paper's claims, to be decided by the cells of the tables."""

    def misfits(self) -> Iterator[Misfit]:
        """Yield what does not fit together in this config, although every key of it is valid."""
        yield from self._unknown_datasets()
        yield from self._equal_names()
        roots = {name: dataset.root for name, dataset in self.datasets.items() if dataset.root is not None}
        for misfit in _raised_by(check_places, self.results, self.checkpoints, roots):
            yield misfit._replace(entries=(("results", ""), ("results", ""), ("checkpoints", "")))
        yield from self._unknown_target_encoders()
        for name, section in self.modalities.items():
            heads = getattr(section, "num_heads", None)
            if heads is not None and self.backbone.dim % heads:
                dim = f"backbone.dim {self.backbone.dim}"
                yield Misfit(
                    f"modalities.{name}.num_heads: {dim} is not a multiple of {heads}",
                    (("modalities", name), ("backbone", "")),
                )
        for name, encoder in self.encoders.items():
            if name in RESERVED:
                fault: str | None = "this name has a meaning of its own; choose another"
            else:
                fault = self._pretraining_fault(encoder) or self._source_fault(encoder)
            if fault:
                yield Misfit(f"encoders.{name}: {fault}", tuple(self.entries_behind(name)))
            elif encoder.body == "convnext" and self.convnext is None:
                yield Misfit(f"encoders.{name}: body convnext needs a convnext section", (("convnext", ""),))

    def _unknown_datasets(self) -> Iterator[Misfit]:
        named: list[tuple[str, Entry, str]] = [
            (f"encoders.{name}.dataset", ("encoders", name), each.dataset)
            for name, each in self.encoders.items()
            if each.dataset is not None
        ]
        named += [(kind, (kind, name), name) for kind in catalog.KINDS for name in getattr(self, kind, ())]
        for key, entry, dataset in named:
            if dataset not in self.datasets:
                fault = f"{key}: no dataset {dataset!r}; the datasets are {listed(self.datasets)}"
                yield Misfit(fault, (entry, ("datasets", dataset)))

    def _equal_names(self) -> Iterator[Misfit]:
        paths = (*self.tables, *self.figures)
        stems = [PurePosixPath(path).stem for path in paths]
        taken = {SUMMARY}
        for stem, path in zip(stems, paths, strict=True):
            yield from _raised_by(check_result_name, stem, path)
            if stem in taken:
                yield Misfit(f"tables, figures: the name {stem} is taken; rename the file {path}")
            taken.add(stem)
        for name in ("seeds", "pretrain_seeds"):
            yield from _raised_by(no_duplicates, name, getattr(self, name))

    def _unknown_target_encoders(self) -> Iterator[Misfit]:
        for key, encoder in self.target_encoders.items():
            for name in (key, encoder):
                if name not in self.encoders:
                    fault = f"target_encoders: no encoder {name!r}; the encoders are {listed(self.encoders)}"
                    yield Misfit(fault, (("target_encoders", key), ("encoders", name)))

    def entries_behind(self, name: str) -> list[Entry]:
        """Return the entries of a config that an encoder is made from, its own first."""
        found: list[Entry] = [("encoders", name)]
        if name in self.encoders and (source := self.encoders[name].epoch_of) is not None:
            found.append(("encoders", source))
        named = [self.encoders[each].entries for _, each in found if each in self.encoders]
        return [*found, *chain.from_iterable(named)]

    def _pretraining_fault(self, encoder: Encoder) -> str | None:
        if encoder.dataset is None or encoder.dataset not in self.datasets:  # which has its own message
            return None
        dataset = self.datasets[encoder.dataset]
        if dataset.modalities != (encoder.modality,):
            return (
                f"modality = {encoder.modality!r}: {encoder.dataset} has layout {dataset.layout}, whose "
                f"modality is {' and '.join(dataset.modalities)}"
            )
        if dataset.subsets is not None:
            return f"{encoder.dataset} has subsets; encoders are pretrained on datasets without"
        if encoder.objective == "supervised" and dataset.classifier is None:
            return f"{encoder.dataset} has no labels for objective: supervised"
        return None

    def _source_fault(self, encoder: Encoder) -> str | None:
        if encoder.file is None and encoder.modality not in self.modalities:
            return self.missing_section(str(encoder.modality))
        if encoder.epoch_of is not None:
            other = self.encoders.get(encoder.epoch_of)
            if other is None or other.epoch_of is not None:
                known = listed(name for name, each in self.encoders.items() if each.pretrain is not None)
                return f"epoch_of = {encoder.epoch_of!r} is not a pretrained encoder; give one of {known}"
            if other.modality not in (None, encoder.modality) or other.body != encoder.body:
                return f"{encoder.epoch_of} has another modality or body"
        return None

    def why_unmade(self, name: str) -> str | None:
        """Return why an encoder cannot be made, and what to do about it; None if it can be made.

        Its cells stay empty, so that nobody has to delete rows who replaces a pretraining by a file.
        """
        encoder = self.encoders.get(name)
        source = self.encoders.get(encoder.epoch_of) if encoder and encoder.epoch_of else None
        if encoder is None or source is None or source.pretrain is not None:
            return None
        what = "has random weights" if source.random else "is a file"
        return (
            f"encoder {encoder.epoch_of} {what}, of which no epoch {encoder.epoch} is kept; pretrain it, or "
            f"give {name} a file of its own"
        )

    def missing_section(self, modality: str) -> str:
        """Return the message for a modality that this config has no section for."""
        if modality not in catalog.MODALITIES:
            return catalog.unknown("modality", modality, catalog.MODALITIES)
        return f"modality {modality} needs a section modalities.{modality}; add it"


_STAND_INS: dict[str, Any] = {
    "backbone": {"dim": 64, "depth": 1, "num_heads": 1},
    "convnext": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]},
    "modalities": {},
    "datasets": {},
    "encoders": {},
    "finetune": {},
}
"""What replaces a faulty key, so that the rest of a config is checked in the same run."""


def _stand_in(entry: Entry, given: Any) -> Any:
    """Return what replaces a faulty entry: of an encoder, one whose runs are the same."""
    section, name = entry
    if section == "encoders" and name and isinstance(given, Mapping):
        return {"random": True, **{key: given[key] for key in ("modality", "body") if key in given}}
    return None if name else _STAND_INS.get(section)


def read_config(values: Mapping[str, Any], source: str, faults: Faults) -> Config:
    """Build a config from what is valid in a document, and note all faults of the rest.

    Args:
        values: the document.
        source: its file, for messages.
        faults: takes the faults. The entries that they spoil are missing from the config or replaced.

    Raises:
        InputError: nothing can be built.
    """
    config = validate_rest(config_class(), values, source, faults, stand_in=_stand_in)
    for fault, entries in config.misfits():
        if not faults.affect(entries[1:]):
            faults.add(InputError(f"{source}: {as_sentence(fault)}"), *entries[:1])
    return config


SECTIONS = ("finetune", "transfer")
"""Sections of kinds of run that `Config` declares itself."""


def config_class() -> type[Config]:
    """Return the class of configs, with the sections of the catalog's further kinds of run.

    Raises:
        InputError: a kind has the name of another key, or the class of a section's entries cannot be imported
            or is not `Strict`.
    """
    sections = []
    for name in catalog.KINDS:
        settings = catalog.kind(name).settings
        is_declared = settings is None and name in SECTIONS
        if not is_declared and (name in Config.model_fields or hasattr(Config, name)):
            raise InputError(f"kind {name}: {name!r} has another meaning in a config; rename the kind")
        if settings is not None:
            sections.append((name, catalog.load_class(settings, f"kind {name}: settings", Strict)))
    return _with_sections(tuple(sections))


@functools.cache  # configs of two classes are never equal
def _with_sections(sections: tuple[tuple[str, Any], ...]) -> type[Config]:
    fields: dict[str, Any] = {
        name: (dict[Name, entry], Field(default_factory=dict))  # type: ignore[valid-type]
        for name, entry in sections
    }
    return create_model("Config", __base__=Config, **fields) if fields else Config
