"""Interfaces of the modules of dataset layouts; `m2pt.catalog.LAYOUTS` lists the layouts.

A layout's module is imported when it is needed: this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from m2pt import catalog
from m2pt.errors import InputError

if TYPE_CHECKING:
    import torch

    from m2pt.datasets.base import SeededDataset

Classes: TypeAlias = int | Mapping[str, int]
"""Number of classes of a dataset, or of each of its subsets by name."""


class LayoutModule(Protocol):
    """Interface of a module that reads a layout. Paths are given and returned under `root`."""

    @property
    def Reader(self) -> Callable[..., SeededDataset]:
        """`Reader(root, split, *, num_classes, seed=0, augmentation=None, **input)`; "train" or "val".

        A layout of several modalities also has "test"; its "val" is for selection and for methods that adapt.
        """
        ...

    def check(self, root: Path, *, num_classes: Any, full: bool) -> list[str]:
        """Return every problem, one sentence each that names the file; none for a valid dataset.

        `num_classes` is an integer, or for a layout with subsets an integer for each. Problems of samples
        that a training may skip are `m2pt.datasets.corrupt.CorruptSample`.
        """
        ...

    def files(self, root: Path) -> Iterable[Path]:
        """Return the files that belong to the dataset, in any order."""
        ...

    def classes(self, root: Path) -> list[str]:
        """Return the names of the classes, in label order."""
        ...

    def counts(self, root: Path) -> dict[str, int]:
        """Return the number of samples of each split; "train" is one of them."""
        ...

    def synthetic_batch(
        self,
        batch_size: int,
        *,
        num_classes: int,
        input: Mapping[str, Any],
        augmentation: Any,
        device: torch.device,
    ) -> Any:
        """Return random inputs and labels on `device`, as the reader and its task's `collate` would give.

        `input` is the architecture's input; `augmentation` is the recipe's, or None.
        """
        ...

    # `m2pt data convert` calls `convert(root)` of a module that has it, which makes the files that are read.
    # `m2pt data pack` calls `pack(source, target, samples_per_shard=N)` of a module that has it, which puts
    # the same samples into few files.
    # `m2pt check` also calls `check_augmentation(augmentation, input)` of a module that has it. It raises an
    # InputError for an augmentation that does not fit the input or is unknown to timm.


class MiniatureModule(Protocol):
    """Interface of a module that writes a miniature."""

    def build(self, root: Path, *, seed: int, **sizes: Any) -> None:
        """Write the miniature to `root`, the same bytes for the same arguments.

        Sizes are keyword arguments with defaults. One of them is `train`: what `counts` returns for
        "train", and for "val" if that is held out of the training list; others are for instance `val`, or
        the side of images.
        """
        ...


class PreparationModule(Protocol):
    """Interface of a module that makes a layout's files of the official downloads."""

    def prepare(self, downloads: Path, root: Path, **options: Any) -> list[str]:
        """Write to `root` what is made of the files in `downloads`, and say in lines what was found.

        Each file appears whole, none is replaced, and a preparation that was stopped goes on where it was.
        Options are keyword arguments with defaults: the `preparation_options` of the layout's entry.
        """
        ...


def layout_module(layout: str) -> LayoutModule:
    """Import and return the module that reads `layout`.

    Raises:
        InputError: there is no such layout, or its module cannot be imported.
    """
    return cast(LayoutModule, catalog.load(catalog.layout(layout).reader, f"layout {layout}: reader"))


def miniature_module(layout: str) -> MiniatureModule:
    """Import and return the module that writes a miniature in `layout`.

    Raises:
        InputError: there is no such layout, or its module cannot be imported.
    """
    entry = catalog.layout(layout)
    return cast(MiniatureModule, catalog.load(entry.miniature or entry.reader, f"layout {layout}: miniature"))


def preparation_module(layout: str) -> PreparationModule | None:
    """Import and return the module that prepares `layout`; None if it has none.

    Raises:
        InputError: there is no such layout, or its module cannot be imported.
    """
    path = catalog.layout(layout).preparation
    return cast(PreparationModule, catalog.load(path, f"layout {layout}: preparation")) if path else None


def reader(layout: str) -> Callable[..., SeededDataset]:
    """Return the `Reader` class of `layout`; see `LayoutModule`."""
    return layout_module(layout).Reader


def check(layout: str, root: Path, *, num_classes: Classes, full: bool) -> list[str]:
    """Return every problem of the dataset at `root`, one sentence each; see `LayoutModule`."""
    module = layout_module(layout)
    if not root.is_dir():
        return [f"{root} is not a folder: give the folder that holds the {layout} dataset."]
    try:
        problems = module.check(root, num_classes=num_classes, full=full)
    except OSError as error:  # a folder that may not be listed, a disk that fails
        return [f"{error.filename or root} cannot be read: {error.strerror}."]
    if not isinstance(problems, list):
        raise InputError(f"layout {layout}: check must return a list of sentences, got {problems!r}")
    return problems
