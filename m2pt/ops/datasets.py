"""Build, check and describe a dataset on disk."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2pt import catalog
from m2pt.atomic import write_json
from m2pt.datasets.corrupt import separate
from m2pt.datasets.layouts import Classes, check, miniature_module
from m2pt.datasets.manifest import build_manifest
from m2pt.errors import InputError, count


def build_miniature(
    layout: str, root: Path, *, seed: int, sizes: Mapping[str, Any], manifest_path: Path
) -> None:
    """Write the miniature of `layout` to `root`, and a manifest with a hash of its content.

    Raises:
        InputError: the builder has no such size, or `root` holds something else.
        OSError: the disk is full or not writable.
    """
    check_sizes(layout, sizes)
    miniature_module(layout).build(root, seed=seed, **sizes)
    write_manifest(layout, root, manifest_path=manifest_path, full=True)


def check_sizes(layout: str, sizes: Mapping[str, Any]) -> None:
    """Check that the builder of a miniature has these sizes, and the size `train`.

    Raises:
        InputError: it has not, or takes other arguments than `build(root, *, seed, train=..., **sizes)`.
    """
    owner = f"layout {layout}: miniature: build"
    with catalog.naming(owner):
        signature = inspect.signature(miniature_module(layout).build)
    known = [name for name in signature.parameters if name not in ("root", "seed")]
    train = signature.parameters.get("train")
    if train is None or not isinstance(train.default, int):
        raise InputError(f"{owner}{signature}: must have a parameter train, with a number as default")
    takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    for name in sizes:
        if name not in known and not takes_any:
            raise InputError(
                f"the miniature {layout} has no size {name!r}; its sizes are {', '.join(known)}."
            )
    try:
        signature.bind(Path(), seed=0, **sizes)
    except TypeError as error:
        raise InputError(f"{owner}{signature}: must take (root, *, seed, **sizes): {error}") from None


def write_manifest(layout: str, root: Path, *, manifest_path: Path, full: bool) -> None:
    """Write the manifest of the dataset at `root`; `full` hashes its content, which reads every byte.

    Raises:
        InputError: a file that lists the dataset's classes or items is missing, or the layout counts no items
            for training.
    """
    manifest = build_manifest(root, layout, full=full)
    items = manifest["items"]
    if catalog.layout(layout).manifest_has_counts and not (
        isinstance(items, Mapping) and isinstance(items.get("train"), int)
    ):
        raise InputError(f"layout {layout}: reader: counts must return a number for 'train', got {items!r}")
    write_json(manifest_path, manifest)


def check_dataset(
    layout: str,
    root: Path,
    *,
    num_classes: Classes | None = None,
    full: bool = False,
    skip_corrupt: bool = False,
) -> None:
    """Check the dataset at `root`, against the official number of classes unless `num_classes` is given.

    With `skip_corrupt`, corrupt samples of the training split are printed as a warning, up to the bound.

    Raises:
        InputError: the dataset is invalid; the message lists all problems, one per line.
    """
    expected = catalog.layout(layout).num_classes if num_classes is None else num_classes
    if expected is None:
        raise InputError(f"layout {layout} has no official number of classes: give --num-classes N.")
    problems = check(layout, root, num_classes=expected, full=full)
    refused, corrupt = separate(problems)
    faults, skipped = (refused, corrupt) if skip_corrupt else (problems, [])
    if faults:
        found = "1 problem" if len(faults) == 1 else f"{len(faults)} problems"
        official = " with the official number of classes (--num-classes N for another)"
        kind = f"{layout} dataset{official if num_classes is None else ''}"
        may_be_skipped = bool(corrupt) and not refused and not skip_corrupt
        hint = ["To train without these files, set corrupt_samples: skip for the dataset in the config."]
        lines = [f"{root} is not a valid {kind}, {found}:", *faults, *(hint if may_be_skipped else [])]
        raise InputError("\n".join(lines))
    if skipped:
        found = count(len(skipped), "corrupt training sample", "corrupt training samples")
        print(
            "\n".join(
                [f"warning: {root} has {found}, left out by trainings with corrupt_samples: skip:", *skipped]
            )
        )
    size = (
        count(expected, "class", "classes")
        if isinstance(expected, int)
        else f"the subsets {', '.join(expected)}"
    )
    read = "all files were read" if full else "use --full to also read all files to the end"
    others = "other " if skipped else ""
    print(f"{root}: no {others}problems found in this {layout} dataset of {size}; {read}.")
