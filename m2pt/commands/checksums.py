"""SHA256SUMS: what `sha256sum --check` reads. DVC trusts a cache or remote whose object was damaged."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from m2pt.atomic import write_text
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes, read_text
from m2pt.formats.weight_files import file_digest
from m2pt.schema.pulled import CHECKSUMS


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of these files of a folder, unless they are there."""
    text = "".join(f"{file_digest(folder / name)}  {name}\n" for name in names)
    path = folder / CHECKSUMS
    if not path.exists() or read_bytes(path) != text.encode():
        write_text(path, text)


def check_checksums(folder: Path, names: Iterable[str]) -> None:
    """Compare files of a folder with the checksums beside them.

    Raises:
        InputError: one has none or is damaged.
    """
    path = folder / CHECKSUMS
    lines = read_text(path).splitlines()
    sums = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    for name in names:
        found = file_digest(folder / name)
        if sums.get(name) != found:
            raise InputError(
                f"{folder / name}: damaged, its SHA-256 is {found} and {path} says "
                f"{sums.get(name, 'nothing')}; DVC does not look into its cache. Fetch it again: "
                f"rm -r {shlex.quote(str(folder))}; mv .dvc/cache/files .dvc/cache/set-aside; "
                f"dvc pull {shlex.quote(str(folder.parent))}. If it comes "
                "back damaged, it is so in the remote (docs/checkpoints.md, When it fails)."
            )
