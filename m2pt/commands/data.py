"""`m2pt data`: build a miniature, describe a dataset in a manifest, check a dataset."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2pt.atomic import write_json
from m2pt.datasets.layouts import OFFICIAL_CLASSES, check, miniature_module
from m2pt.errors import InputError


def run_build(layout: str, root: Path, *, seed: int, sizes: Mapping[str, Any], manifest_path: Path) -> None:
    """Write the miniature of `layout` to `root`, and beside it a manifest with a hash of its content.

    Raises:
        InputError: `sizes` has a key that the builder lacks, `root` holds something else, or the disk is full
            or may not be written.
    """
    build = miniature_module(layout).build
    known = [name for name in inspect.signature(build).parameters if name not in ("root", "seed")]
    for name in sizes:
        if name not in known:
            raise InputError(
                f"the miniature {layout} has no size {name!r}; its sizes are {', '.join(known)}."
            )
    try:
        build(root, seed=seed, **sizes)
    except OSError as error:
        raise InputError(f"{root} cannot be written: {error}.") from error
    run_manifest(layout, root, manifest_path=manifest_path, full=True)


def run_manifest(layout: str, root: Path, *, manifest_path: Path, full: bool) -> None:
    """Write the manifest of the dataset at `root`; `full` hashes its content, which reads every byte.

    Raises:
        InputError: a file that names the dataset's classes or items is missing.
    """
    from m2pt.datasets.manifest import build_manifest

    write_json(manifest_path, build_manifest(root, layout, full=full))


def run_check(layout: str, root: Path, *, num_classes: int | None = None, full: bool = False) -> None:
    """Check the dataset at `root`; without `num_classes` against the official number of the layout.

    Raises:
        InputError: something is wrong; the message has every fault found on a line of its own.
    """
    expected = OFFICIAL_CLASSES.get(layout, 0) if num_classes is None else num_classes
    faults = check(layout, root, num_classes=expected, full=full)
    if faults:
        found = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InputError("\n".join([f"{root} is not a sound {layout} dataset, {found}:", *faults]))
    print(f"{root}: no fault found in this {layout} dataset of {expected} classes.")
