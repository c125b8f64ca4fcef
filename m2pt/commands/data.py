"""`m2pt data build DATASET`, `m2pt data check DATASET [ROOT]`: make a miniature, check any dataset."""

import argparse
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2pt.atomic import write_json
from m2pt.commands.planned import add_plan_arguments, expect, load_plan
from m2pt.datasets.layouts import OFFICIAL_CLASSES, Classes, check, miniature_module
from m2pt.errors import InputError

MOST_CLASSES = 1_000_000
"""More than any dataset has; a check goes through all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="build|check", required=True)
    building = actions.add_parser("build", help="write the miniature of a dataset of the config")
    building.add_argument("dataset", help="name of a dataset of the config")
    add_plan_arguments(building)
    checking = actions.add_parser("check", help="name every fault of a dataset on disk")
    checking.add_argument("dataset", help="name of a dataset of the config; with ROOT, name of a layout")
    checking.add_argument(
        "root", type=Path, nargs="?", help="folder of the dataset; none: as the config says"
    )
    checking.add_argument("--full", action="store_true", help="also read every file to its end")
    checking.add_argument(
        "--num-classes", type=int, metavar="N", help="default: of the config or the official one"
    )
    checking.add_argument(
        "--manifest", type=Path, metavar="FILE", help="write a manifest of the sound dataset"
    )
    add_plan_arguments(checking)


def run(arguments: argparse.Namespace) -> None:
    """Build or check.

    Raises:
        InputError: no such dataset or layout, or the dataset has faults; all of them are named.
    """
    given = arguments.num_classes if arguments.action == "check" else None
    if given is not None and not 1 <= given <= MOST_CLASSES:
        raise InputError(f"--num-classes {given}: must be an integer from 1 to {MOST_CLASSES}.")
    if arguments.action == "check" and arguments.root is not None:
        layout, root, num_classes = arguments.dataset, arguments.root, arguments.num_classes
        run_check(layout, root, num_classes=num_classes, full=arguments.full)
    else:
        plan = load_plan(arguments)
        dataset = plan.config.datasets.get(arguments.dataset)
        if dataset is None:
            known = ", ".join(plan.config.datasets)
            raise InputError(f"no dataset {arguments.dataset!r} in {arguments.config}; it has {known}.")
        expect(arguments, plan.dataset_digest(arguments.dataset))
        layout, root, manifest = (
            dataset.layout,
            plan.root(arguments.dataset),
            plan.manifest(arguments.dataset),
        )
        if arguments.action == "build":
            if dataset.miniature is None:
                raise InputError(
                    f"dataset {arguments.dataset} of {arguments.config} is yours, at {root}: check it."
                )
            settings = dataset.miniature
            run_build(layout, root, seed=settings.seed, sizes=settings.sizes, manifest_path=manifest)
            run_check(layout, root, num_classes=dataset.classes)
            return
        arguments.full = arguments.full or dataset.full_check
        run_check(layout, root, num_classes=arguments.num_classes or dataset.classes, full=arguments.full)
    if arguments.manifest is not None:
        run_manifest(layout, root, manifest_path=arguments.manifest, full=arguments.full)


def run_build(layout: str, root: Path, *, seed: int, sizes: Mapping[str, Any], manifest_path: Path) -> None:
    """Write the miniature of `layout` to `root`, and beside it a manifest with a hash of its content.

    Raises:
        InputError: `sizes` has a key that the builder lacks, or `root` holds something else.
        OSError: the disk is full or may not be written.
    """
    build = miniature_module(layout).build
    known = [name for name in inspect.signature(build).parameters if name not in ("root", "seed")]
    for name in sizes:
        if name not in known:
            raise InputError(
                f"the miniature {layout} has no size {name!r}; its sizes are {', '.join(known)}."
            )
    build(root, seed=seed, **sizes)
    run_manifest(layout, root, manifest_path=manifest_path, full=True)


def run_manifest(layout: str, root: Path, *, manifest_path: Path, full: bool) -> None:
    """Write the manifest of the dataset at `root`; `full` hashes its content, which reads every byte.

    Raises:
        InputError: a file that names the dataset's classes or items is missing.
    """
    from m2pt.datasets.manifest import build_manifest

    write_json(manifest_path, build_manifest(root, layout, full=full))


def run_check(layout: str, root: Path, *, num_classes: Classes | None = None, full: bool = False) -> None:
    """Check the dataset at `root`; without `num_classes` against the official number of the layout.

    Raises:
        InputError: something is wrong; the message has every fault found on a line of its own.
    """
    expected = OFFICIAL_CLASSES.get(layout, 0) if num_classes is None else num_classes
    faults = check(layout, root, num_classes=expected, full=full)
    if faults:
        found = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        official = " of the official number of classes (--num-classes N for another)"
        kind = f"{layout} dataset{official if num_classes is None else ''}"
        raise InputError("\n".join([f"{root} is not a sound {kind}, {found}:", *faults]))
    size = f"{expected} classes" if isinstance(expected, int) else f"the subsets {', '.join(expected)}"
    looked = "every file was read" if full else "--full also reads every file to its end"
    print(f"{root}: no fault found in this {layout} dataset of {size}; {looked}.")
