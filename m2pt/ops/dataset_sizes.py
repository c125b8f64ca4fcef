"""The number of items of a training split: of a dataset on disk, of a miniature, or as published."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from m2pt import catalog
from m2pt.errors import InputError, listed, short
from m2pt.plan.plan import Plan
from m2pt.plan.specs import PretrainingSpec, RunSpec
from m2pt.results import Manifest, read


@dataclass(frozen=True)
class Items:
    """The size of a training split, and the origin of that number."""

    count: int
    origin: str


def training_items(plan: Plan, spec: RunSpec | PretrainingSpec, given: Mapping[str, int]) -> Items | None:
    """Return the number of items that the training of this spec has in an epoch; None if it is unknown.

    Args:
        plan: plan with the datasets and manifests.
        spec: spec of a training.
        given: sizes by dataset, or by dataset/subset, which take precedence.

    Raises:
        InputError: the dataset exists, but cannot be read.
    """
    dataset, key = spec.dataset, spec.dataset.key
    name, entry = dataset.name, catalog.layout(dataset.layout)
    if key in given:
        return Items(given[key], "--items")
    manifest = plan.manifest(name)
    if entry.manifest_has_counts and manifest.exists():
        count = read(Manifest, manifest).items.get("train")
        if count is None:
            raise InputError(f"{manifest}: has no number of training items; delete it and check the dataset.")
        return Items(windows(spec, count), str(manifest))
    if plan.root(name).is_dir():
        return Items(_read(plan.root(name), spec, key), str(plan.root(name)))
    if plan.config.datasets[name].miniature is not None:
        size = _trained_on(spec, _miniature_size(plan, name, dataset.layout))
        return Items(windows(spec, size), "the miniature to be built")
    published = entry.published.get(key)
    if published is None or dataset.num_classes != (
        published.num_classes or _official_classes(entry, dataset.subset)
    ):
        return None
    return Items(_trained_on(spec, published.items), published.source)


def parse_items(pairs: list[str]) -> dict[str, int]:
    """Turn `DATASET=N` arguments into a mapping.

    Raises:
        InputError: an argument is malformed.
    """
    given = {}
    for pair in pairs:
        name, _, count = pair.partition("=")
        if not (count.isascii() and count.isdecimal()) or len(count) > 18 or not int(count):
            raise InputError(f"--items {short(pair, 60)}: give DATASET=N, such as --items text=1000000.")
        given[name] = int(count)
    return given


def _official_classes(entry: catalog.Layout, subset: str | None) -> int | None:
    classes = entry.num_classes
    return classes.get(subset or "") if isinstance(classes, Mapping) else classes


def windows(spec: RunSpec | PretrainingSpec, count: int) -> int:
    """Return the items in a split of so many units: bytes of a text, which is trained on in windows.

    Raises:
        InputError: the layout's `window` is no key of the input.
    """
    layout, settings = spec.dataset.layout, spec.reader_input()
    window = catalog.layout(layout).window
    if window is None:
        return count
    length = settings.get(window)
    if not isinstance(length, int) or length < 1:
        known = listed(name for name, value in settings.items() if isinstance(value, int))
        raise InputError(f"layout {layout}: window: the input has no number {window!r}; it has {known}")
    return count // length


def _trained_on(spec: RunSpec | PretrainingSpec, count: int) -> int:
    """Return what is left of a training list of so many items; readers round the share in each class.

    Raises:
        InputError: the layout's `held_out` is no key of the input.
    """
    layout, settings = spec.dataset.layout, spec.reader_input()
    key = catalog.layout(layout).held_out
    if key is None:
        return count
    if key not in settings:
        raise InputError(f"layout {layout}: held_out: the input has no {key!r}; it has {listed(settings)}")
    return count - int(settings[key] * count + 0.5)


def _miniature_size(plan: Plan, name: str, layout: str) -> int:
    from m2pt.datasets.layouts import miniature_module

    chosen = plan.config.datasets[name].miniature
    default = inspect.signature(miniature_module(layout).build).parameters["train"].default
    return int((chosen.sizes if chosen else {}).get("train", default))


def _read(root: Path, spec: RunSpec | PretrainingSpec, key: str) -> int:
    from m2pt.datasets.layouts import reader

    settings = spec.reader_input()
    if spec.dataset.subset is not None:
        settings["subset"] = spec.dataset.subset
    try:
        split = reader(spec.dataset.layout)(root, "train", num_classes=spec.dataset.num_classes, **settings)
    except InputError as error:
        raise InputError(f"{error} (to plan without this dataset, pass --items {key}=N)") from None
    return len(split)
