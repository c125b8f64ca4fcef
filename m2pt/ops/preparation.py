"""Make a dataset of its official downloads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2pt import catalog
from m2pt.datasets.layouts import Classes, preparation_module
from m2pt.datasets.preparation.archives import unpack_archives
from m2pt.errors import InputError


def prepare(
    layout: str,
    downloads: Path,
    root: Path,
    options: Mapping[str, Any],
    *,
    num_classes: Classes | None = None,
) -> list[str]:
    """Write to `root` what is made of the files in `downloads`, and return what was found, a line each.

    Args:
        layout: name of the layout.
        downloads: folder of the official files, which stay as they are.
        root: folder of the dataset.
        options: options of `m2pt data prepare` that were given, by keyword.
        num_classes: number of classes; the official one by default.

    Raises:
        InputError: the layout needs no preparation or has no such option, a file is missing, damaged or not
            the official one, or another file is where one has to be written.
        OSError: the disk is full or not writable.
    """
    entry, module = catalog.layout(layout), preparation_module(layout)
    if module is None and not entry.archives:
        raise InputError(
            f"there is no preparation of layout {layout}: put its files in place as docs/data.md says, and "
            f"check them with m2pt data check {layout} ROOT."
        )
    for name in options:
        if name not in entry.preparation_options:
            raise InputError(f"layout {layout} has no option --{name}: leave it out.")
    if not downloads.is_dir():
        raise InputError(f"{downloads} is not a folder: give the folder that holds the downloaded files.")
    if module is None:
        return unpack_archives(entry.archives, downloads, root)
    if "num_classes" in entry.preparation_options:
        options = {"num_classes": num_classes or entry.num_classes, **options}
    return module.prepare(downloads, root, **options)
