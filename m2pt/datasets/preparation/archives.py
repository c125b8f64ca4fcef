"""Layouts whose official zip archives only have to be unpacked, each into its place."""

from collections.abc import Mapping
from pathlib import Path

from m2pt.datasets.preparation.unpacking import find_archive, unpack_zip
from m2pt.errors import count


def unpack_archives(archives: Mapping[str, str], downloads: Path, root: Path) -> list[str]:
    """Unpack archives in `downloads` to `root`.

    Files that are there with the right size are skipped.

    Args:
        archives: for the name of each archive, the folder below `root` that its content belongs to, "" for
            `root`. A folder around the content, named as the archive or as that folder, is left out.
        downloads: folder that holds the archives.
        root: folder of the dataset.

    Returns:
        What was done, a line for each archive.

    Raises:
        InputError: an archive is missing or damaged, or another file is where one has to be written.
        OSError: the disk is full or not writable.
    """
    paths = {find_archive(downloads, name): folder for name, folder in archives.items()}
    lines = []
    for path, folder in paths.items():
        written = unpack_zip(path, root / folder, without=frozenset({path.stem, folder}))
        lines.append(f"{path.name}: {count(written, 'new file', 'new files')}")
    return lines
