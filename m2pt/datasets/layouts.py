"""The on-disk layouts the project reads, by name; a layout's module is imported only when it is asked for.

`m2pt.datasets.<layout>` reads a layout and has the members of `LayoutModule`;
`m2pt.datasets.miniature.<layout>` writes a small dataset in it and has the members of `MiniatureModule`.
This module imports no torch, so that the schema and the command line may use the names.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from m2pt.errors import InputError

if TYPE_CHECKING:
    from m2pt.datasets.seeded import SeededDataset

Classes: TypeAlias = int | Mapping[str, int]
"""Number of classes of a dataset, or of each of its subsets by name."""

OFFICIAL_CLASSES: dict[str, Classes] = {
    "ade20k": 150,
    "audioset": 527,
    "coco": 80,
    "imagenet": 1000,
    "kinetics": 400,
    "partnet": {
        "Bed-3": 15,
        "Bottle-3": 9,
        "Chair-3": 39,
        "Clock-3": 11,
        "Dishwasher-3": 7,
        "Display-3": 4,
        "Door-3": 5,
        "Earphone-3": 10,
        "Faucet-3": 12,
        "Knife-3": 10,
        "Lamp-3": 41,
        "Microwave-3": 6,
        "Refrigerator-3": 7,
        "StorageFurniture-3": 24,
        "Table-3": 51,
        "TrashCan-3": 11,
        "Vase-3": 6,
    },
    "shapenet55": 55,
    "shapenetpart": 50,
    "text": 256,
}
"""Every layout, with the number of classes of the official dataset that defines it."""


class LayoutModule(Protocol):
    """What a module that reads a layout offers. Paths are given and returned under `root`."""

    @property
    def Reader(self) -> Callable[..., SeededDataset]:
        """`Reader(root, split, *, num_classes, seed=0, augmentation=None, **input)`; "train" or "val"."""
        ...

    def check(self, root: Path, *, num_classes: Any, full: bool) -> list[str]:
        """Every fault found, one sentence each, naming the file; none for a sound dataset.

        `num_classes` is an integer, or for a layout with subsets one by subset.
        """
        ...

    def files(self, root: Path) -> Iterable[Path]:
        """The files that belong to the dataset, in any order."""
        ...

    def classes(self, root: Path) -> list[str]:
        """The names of the classes, in label order."""
        ...

    def counts(self, root: Path) -> dict[str, int]:
        """The number of items of each split: `{"train": ..., "val": ...}`."""
        ...


class MiniatureModule(Protocol):
    """What a module that writes a miniature offers."""

    def build(self, root: Path, *, seed: int, **sizes: Any) -> None:
        """Write the miniature to `root`, the same bytes for the same arguments."""
        ...


def layout_module(layout: str) -> LayoutModule:
    """Import and return the module that reads `layout`.

    Raises:
        InputError: there is no such layout.
    """
    return cast(LayoutModule, importlib.import_module(f"m2pt.datasets.{_known(layout)}"))


def miniature_module(layout: str) -> MiniatureModule:
    """Import and return the module that writes a miniature in `layout`.

    Raises:
        InputError: there is no such layout.
    """
    return cast(MiniatureModule, importlib.import_module(f"m2pt.datasets.miniature.{_known(layout)}"))


def reader(layout: str) -> Callable[..., SeededDataset]:
    """Return the `Reader` class of `layout`; see `LayoutModule`."""
    return layout_module(layout).Reader


def check(layout: str, root: Path, *, num_classes: Classes, full: bool) -> list[str]:
    """Return every fault of the dataset at `root`, one sentence each; see `LayoutModule`."""
    if not root.is_dir():
        return [f"{root} is not a folder: give the folder that holds the {_known(layout)} dataset."]
    try:
        return layout_module(layout).check(root, num_classes=num_classes, full=full)
    except OSError as error:  # a folder that may not be listed, a disk that fails
        return [f"{error.filename or root} cannot be read: {error.strerror}."]


def _known(layout: str) -> str:
    if layout not in OFFICIAL_CLASSES:
        raise InputError(
            f"there is no dataset layout {layout!r}; choose one of {', '.join(OFFICIAL_CLASSES)}."
        )
    return layout
