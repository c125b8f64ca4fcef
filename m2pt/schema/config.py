"""The config file: what is run, on which data, at which size. See config/README.md."""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from m2pt.errors import listed
from m2pt.schema.architecture import Backbone, ConvNeXt, Modalities
from m2pt.schema.base import Strict, no_duplicates
from m2pt.schema.paths import FilePath, InputFile, MadeFolder, SubsetName, check_places, check_result_name
from m2pt.schema.ranges import Epoch, Size

Modality = Literal["image", "video", "audio", "pointcloud", "text"]
Layout = Literal[
    "imagenet",
    "coco",
    "ade20k",
    "shapenet55",
    "shapenetpart",
    "partnet",
    "audioset",
    "kinetics",
    "text",
]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=100)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

MODALITY_OF_LAYOUT: dict[str, Modality] = {
    "imagenet": "image",
    "coco": "image",
    "ade20k": "image",
    "audioset": "audio",
    "kinetics": "video",
    "shapenet55": "pointcloud",
    "shapenetpart": "pointcloud",
    "partnet": "pointcloud",
    "text": "text",
}


def _counts_are_whole(sizes: "dict[str, int | float]") -> "dict[str, int | float]":
    for name, value in sizes.items():
        if name not in ("seconds", "unlabelled") and not isinstance(value, int):
            raise ValueError(f"{name} = {value!r} must be an integer >= 1")
    return sizes


class Miniature(Strict):
    """The dataset is built by `m2pt data build`; `sizes` are the keyword arguments of its builder."""

    seed: Seed = 0
    sizes: Annotated[
        dict[Name, Annotated[int, Field(ge=1, le=10_000_000)] | Annotated[float, Field(ge=0, le=1000)]],
        AfterValidator(_counts_are_whole),
    ] = Field(default_factory=dict)


class Dataset(Strict):
    """A dataset in one of the official layouts: yours at `root`, or a miniature built under results.

    `subsets` in place of `num_classes` names parts that are trained on one by one, each with its number of
    classes (PartNet: a category and level such as `Chair-1`). `full_check` opens every file of your dataset
    and hashes its contents before the first training, instead of looking at its structure.
    """

    layout: Layout
    num_classes: Size | None = None
    subsets: Annotated[dict[SubsetName, Size], Field(min_length=1)] | None = None
    root: FilePath | None = None
    miniature: Miniature | None = None
    full_check: bool = False

    @model_validator(mode="after")
    def _classes_are_declared(self) -> "Dataset":
        if self.layout == "partnet" and self.subsets is None:
            raise ValueError("layout partnet needs subsets (category and level: number of classes)")
        if self.layout != "partnet" and self.subsets is not None:
            raise ValueError(f"subsets are for layout partnet, not {self.layout}; give num_classes")
        if (self.num_classes is None) == (self.subsets is None):
            raise ValueError("give num_classes (or, for layout partnet, subsets)")
        return self

    @property
    def classes(self) -> int | dict[str, int]:
        """What is checked against the files: the number of classes, of each subset if there are any."""
        return self.num_classes or dict(self.subsets or {})

    @model_validator(mode="after")
    def _one_origin(self) -> "Dataset":
        if (self.root is None) == (self.miniature is None):
            raise ValueError(
                "give root (the folder of your dataset) or miniature (how to build one), not both"
            )
        return self


class Encoder(Strict):
    """Blocks for a target's start or as an auxiliary.

    Pretrained on `dataset` with a `pretrain` recipe, given as a `file`, `random`, or another encoder as it
    was after one of the epochs that its recipe keeps (`epoch_of`, `epoch`). `objective` is what a
    pretraining minimises: the modality's masked modelling, or a classifier's loss. `body` is the transformer
    of `backbone` or the ConvNeXt of `convnext`. `source: dvc` takes what was pretrained elsewhere from
    `checkpoints`, and it must have been made with the dataset and recipe that stand here.
    """

    modality: Modality
    dataset: Name | None = None
    pretrain: FilePath | None = None
    objective: Literal["masked", "supervised"] = "masked"
    source: Literal["train", "dvc"] = "train"
    body: Literal["transformer", "convnext"] = "transformer"
    file: InputFile | None = None
    random: bool = False
    epoch_of: Name | None = None
    epoch: Epoch | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Encoder":
        sources = (self.pretrain is not None, self.file is not None, self.random, self.epoch_of is not None)
        if sum(sources) != 1:
            raise ValueError(
                "give exactly one of pretrain (a recipe), file (a checkpoint), random: true and epoch_of"
            )
        if (self.pretrain is None) != (self.dataset is None):
            raise ValueError("a pretrained encoder needs pretrain and dataset, the others need neither")
        if self.source == "dvc" and self.pretrain is None:
            raise ValueError("source: dvc is for an encoder with pretrain and dataset, which say what it is")
        if (self.epoch_of is None) != (self.epoch is None):
            raise ValueError("epoch_of (an encoder) and epoch (one that its recipe keeps) go together")
        if self.body == "convnext" and self.pretrain is not None and self.objective == "masked":
            raise ValueError("a convnext has no masked pretraining; give objective: supervised")
        return self

    @property
    def is_trained_here(self) -> bool:
        """Whether this workflow pretrains it."""
        return self.pretrain is not None and self.source == "train"


class FinetuneRecipes(Strict):
    """Recipe files of a dataset: blocks finetuned (tune) or linear weights frozen (fix), by start.

    Those that no table needs may be left out. `convnext_tune` is for targets with that body.
    """

    pretrained_tune: FilePath | None = None
    pretrained_fix: FilePath | None = None
    scratch_tune: FilePath | None = None
    scratch_fix: FilePath | None = None
    convnext_tune: FilePath | None = None


class Transfer(Strict):
    """How a dense task starts: from the merged finetuned model, or the pretrained one and its pathways."""

    recipe: FilePath
    transfer_from: Literal["finetuned", "pretrained"] = "finetuned"
    freeze_backbone: bool = False


class Config(Strict):
    """A whole config file. It is complete by itself: nothing of another one shows through.

    Everything that is made lies under `results`, and under `checkpoints` what DVC moves between machines.
    `starts` names, for a table's `target_init`, the encoder that a target starts from where that is another
    than the auxiliary of this name (the paper's video target: Kinetics-400, its auxiliary: Kinetics-700).
    `paper_scale` says that the recipes are the paper's: only then may a table claim that a gain was
    reproduced.
    """

    results: MadeFolder = "results"
    checkpoints: MadeFolder = "checkpoints"
    paper_scale: bool = False
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    pretrain_seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backbone: Backbone
    convnext: ConvNeXt | None = None
    modalities: Modalities
    datasets: dict[Name, Dataset]
    encoders: dict[Name, Encoder]
    starts: dict[Name, Name] = Field(default_factory=dict)
    finetune: dict[Name, FinetuneRecipes]
    transfer: dict[Name, Transfer] = Field(default_factory=dict)
    tables: Annotated[tuple[FilePath, ...], Field(min_length=1)]
    figures: tuple[FilePath, ...] = ()
    claims: FilePath | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> "Config":
        for section, names in {
            **{f"encoders.{name}.dataset": [e.dataset] for name, e in self.encoders.items() if e.dataset},
            "finetune": list(self.finetune),
            "transfer": list(self.transfer),
        }.items():
            for name in names:
                if name not in self.datasets:
                    raise ValueError(
                        f"{section}: no dataset {name!r}; the datasets are {listed(self.datasets)}"
                    )
        for path in (*self.tables, *self.figures):
            check_result_name(PurePosixPath(path).stem, path)
        stems = [PurePosixPath(path).stem for path in (*self.tables, *self.figures)]
        for stem in stems:
            if stem == "summary" or stems.count(stem) > 1:
                raise ValueError(
                    f"tables, figures: the name {stem} is taken; each result needs one of its own"
                )
        for what, seeds in (("seeds", self.seeds), ("pretrain_seeds", self.pretrain_seeds)):
            no_duplicates(what, seeds)
        return self

    @model_validator(mode="after")
    def _places_are_apart(self) -> "Config":
        roots = {name: dataset.root for name, dataset in self.datasets.items() if dataset.root is not None}
        check_places(self.results, self.checkpoints, roots)
        return self

    @model_validator(mode="after")
    def _starts_exist(self) -> "Config":
        for name in (name for pair in self.starts.items() for name in pair):
            if name not in self.encoders:
                raise ValueError(f"starts: no encoder {name!r}; the encoders are {listed(self.encoders)}")
        return self

    @model_validator(mode="after")
    def _encoders_can_be_made(self) -> "Config":
        for name, encoder in self.encoders.items():
            if (
                encoder.dataset
                and MODALITY_OF_LAYOUT[self.datasets[encoder.dataset].layout] != encoder.modality
            ):
                raise ValueError(
                    f"encoders.{name}: {encoder.dataset} is not a dataset of modality {encoder.modality}"
                )
            if encoder.dataset and self.datasets[encoder.dataset].subsets is not None:
                raise ValueError(
                    f"encoders.{name}: {encoder.dataset} has subsets, which no encoder is trained on"
                )
            if encoder.modality == "text" and self.modalities.text is None:
                raise ValueError(f"encoders.{name}: modality text needs a modalities.text section")
            if encoder.body == "convnext" and self.convnext is None:
                raise ValueError(f"encoders.{name}: body convnext needs a convnext section")
            if encoder.epoch_of is not None:
                other = self.encoders.get(encoder.epoch_of)
                if other is None or other.pretrain is None:
                    raise ValueError(
                        f"encoders.{name}: epoch_of = {encoder.epoch_of!r} is not a pretrained encoder"
                    )
                if (other.modality, other.body) != (encoder.modality, encoder.body):
                    raise ValueError(f"encoders.{name}: {encoder.epoch_of} has another modality or body")
        return self
