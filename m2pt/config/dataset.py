"""A dataset of a config: its layout and classes, where it is, and how it is made."""

from os.path import normpath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from m2pt import catalog
from m2pt.config.names import LayoutName, Name, SubsetName
from m2pt.config.paths import FilePath
from m2pt.config.strict import Strict
from m2pt.errors import listed
from m2pt.ranges import Seed, Size


def _counts_are_whole(sizes: "dict[str, int | float]") -> "dict[str, int | float]":
    for name, value in sizes.items():
        may_be_fraction = name in ("seconds", "unlabelled") or name.endswith("_noise")
        if not may_be_fraction and not isinstance(value, int):
            raise ValueError(f"{name} = {value!r} must be an integer >= 1")
    return sizes


class Miniature(Strict):
    """A dataset that `m2pt data build` writes."""

    seed: Seed = 0
    sizes: Annotated[
        dict[Name, Annotated[int, Field(ge=1, le=10_000_000)] | Annotated[float, Field(ge=0, le=1000)]],
        AfterValidator(_counts_are_whole),
    ] = Field(default_factory=dict)
    """Keyword arguments of its builder."""


class Preparation(Strict):
    """How the workflow makes a dataset of its official downloads: the arguments of `m2pt data prepare`."""

    downloads: FilePath
    """Folder of the downloaded files, which stay as they are."""
    annotations: FilePath | None = None
    """Folder of the official lists, if it is another one."""
    check: bool | None = None
    """Read every clip, and leave out those that cannot be read."""
    unbalanced: bool | None = None
    """AudioSet: train on the unbalanced segments too."""
    statistics: Annotated[int, Field(ge=0)] | None = None
    """AudioSet: clips for mean and standard deviation; 0 for none."""

    @property
    def options(self) -> dict[str, Any]:
        """The options that are given."""
        return self.model_dump(exclude={"downloads"}, exclude_none=True)


class Dataset(Strict):
    """A dataset in one of the official layouts: your own, or a miniature."""

    layout: LayoutName
    num_classes: Size | None = None
    """Number of classes, checked against the files."""
    subsets: Annotated[dict[SubsetName, Size], Field(min_length=1)] | None = None
    """For PartNet, in place of `num_classes`: subsets to train on separately (a category and level such as
    `Chair-1`), each with its number of classes."""
    root: FilePath | None = None
    """Folder of your dataset; or `miniature`."""
    miniature: Miniature | None = None
    """How to build a miniature below `results`; or `root`."""
    prepare: Preparation | None = None
    """How to make your dataset of its official downloads; the workflow does so before it is checked."""
    packed_from: FilePath | None = None
    """Folder of your dataset as single files, which the workflow packs into shards at `root`. `prepare` then
    makes this folder."""
    videos: FilePath | None = None
    """Folder of the videos whose frames the layout reads; the workflow extracts one frame per second."""
    corrupt_samples: Literal["error", "skip"] = "error"
    """What a training does with a sample that cannot be read: stop, or read the next one instead. Evaluations
    always stop."""
    full_check: bool = False
    """Open every file of your dataset and hash its contents before the first training, instead of checking
    its structure only."""

    @model_validator(mode="after")
    def _classes_are_declared(self) -> "Dataset":
        needed, other = "num_classes", "subsets"
        if catalog.layout(self.layout).subsets:
            needed, other = other, needed
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise ValueError(f"layout {self.layout} needs {needed} and takes no {other}")
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> "Dataset":
        if (self.root is None) == (self.miniature is None):
            raise ValueError("give either root (the folder of your dataset) or miniature (how to build one)")
        return self

    @model_validator(mode="after")
    def _videos_have_a_use(self) -> "Dataset":
        if self.videos is not None and (self.root is None or catalog.layout(self.layout).frames is None):
            with_frames = [name for name, entry in catalog.LAYOUTS.items() if entry.frames is not None]
            raise ValueError(f"videos: only for a dataset with root and layout {listed(with_frames)}")
        return self

    @model_validator(mode="after")
    def _can_be_made(self) -> "Dataset":
        for key, fits in (("prepare", _is_prepared), ("packed_from", _is_packed)):
            if getattr(self, key) is not None and (
                self.root is None or not fits(catalog.layout(self.layout))
            ):
                known = [name for name, entry in catalog.LAYOUTS.items() if fits(entry)]
                raise ValueError(f"{key}: only for a dataset with root and layout {listed(known)}")
        keywords = catalog.layout(self.layout).preparation_options
        options = [name for name in keywords if name in Preparation.model_fields]
        for option in self.prepare.options if self.prepare else ():
            if option not in options:
                has = f"its options are {listed(options)}" if options else "it has no options"
                raise ValueError(f"prepare.{option}: not an option of layout {self.layout}; {has}")
        if self.packed_from is not None and normpath(self.packed_from) == normpath(self.root or ""):
            raise ValueError("packed_from: the folder of the files must not be root, that of the shards")
        return self

    @model_validator(mode="after")
    def _samples_can_be_skipped(self) -> "Dataset":
        if self.skips_corrupt and not catalog.layout(self.layout).skippable:
            skippable = [name for name, entry in catalog.LAYOUTS.items() if entry.skippable]
            raise ValueError(f"corrupt_samples: skip is only for layouts {listed(skippable)}")
        return self

    @property
    def skips_corrupt(self) -> bool:
        """Whether trainings skip corrupt samples."""
        return self.corrupt_samples == "skip"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the inputs."""
        return catalog.layout(self.layout).modalities

    @property
    def classes(self) -> int | dict[str, int]:
        """Number of classes, by subset if there are subsets."""
        return self.num_classes or dict(self.subsets or {})

    @property
    def classifier(self) -> str | None:
        """Task that trains a classifier on the labels, if one can be trained."""
        return catalog.pretraining_task(catalog.layout(self.layout).labels)


def _is_prepared(layout: catalog.Layout) -> bool:
    return bool(layout.archives or layout.preparation)


def _is_packed(layout: catalog.Layout) -> bool:
    return layout.shards
