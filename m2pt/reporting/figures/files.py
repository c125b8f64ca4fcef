"""A figure's files: PDF and SVG for a paper, PNG for a screen, CSV with every number that is drawn."""

import csv
import io
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure as Picture

from m2pt.atomic import replacing

# Each format has its own words for what a file says about itself. Dates are left out: equal results give
# equal bytes.
_METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"Title": "title", "Subject": "description", "CreationDate": None},
    "svg": {"Title": "title", "Description": "description", "Date": None},
    "png": {"Title": "title", "Description": "description"},
}


def write_figure(
    stem: Path, picture: Picture, records: Sequence[NamedTuple], *, title: str, caption: str, made: str
) -> None:
    """Write STEM.pdf, .svg, .png, .csv and .made.txt: all of them or, if one fails, none.

    `made` says how the numbers were made; the pictures carry it, and the caption, in their metadata.
    """
    said = {"title": title, "description": f"{caption} {made}"}
    texts = {"csv": to_csv(records), "made.txt": f"{made}\n"}
    with ExitStack() as stack:
        paths = {
            suffix: stack.enter_context(replacing(stem.with_name(f"{stem.name}.{suffix}")))
            for suffix in (*_METADATA, *texts)
        }
        for suffix, keys in _METADATA.items():
            metadata = {key: said[word] if word else None for key, word in keys.items()}
            picture.savefig(paths[suffix], format=suffix, metadata=metadata)
        for suffix, text in texts.items():
            paths[suffix].write_text(text, encoding="utf-8")


def to_csv(records: Sequence[NamedTuple]) -> str:
    """A header of the records' fields and a line for each; six digits, empty for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records[0]._fields)
    writer.writerows([_text(value) for value in record] for record in records)
    return text.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
