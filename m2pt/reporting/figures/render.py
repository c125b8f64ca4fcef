"""Render a figure by its kind and write its files.

PDF and SVG are for papers, PNG for screens, CSV holds every number that is drawn.
"""

import csv
import io
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure as Picture

from m2pt.atomic import replacing
from m2pt.config.figures import (
    AuxiliaryQuality,
    Figure,
    GainBars,
    GainMatrix,
    LoggedValues,
    Scales,
    TrainingCurves,
    Values,
)
from m2pt.reporting.figures import (
    auxiliary_quality,
    gain_bars,
    gain_matrix,
    logged_values,
    scales,
    training_curves,
    values,
)
from m2pt.reporting.figures.cells import FigureCells
from m2pt.run_files import PROVENANCE

_METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"Title": "title", "Subject": "description", "CreationDate": None},
    "svg": {"Title": "title", "Description": "description", "Date": None},
    "png": {"Title": "title", "Description": "description"},
}
"""Each format's keys for title and description. Without dates, equal results give equal bytes."""


def render(cells: FigureCells) -> tuple[Picture, Sequence[NamedTuple]]:
    """Return the picture of a figure and, as records, every number in it.

    Raises:
        InputError: a result lacks values that the plot needs.
    """
    match cells.figure.plot:
        case GainMatrix() as plot:
            gains = gain_matrix.collect(plot, cells)
            return gain_matrix.draw(plot, gains), gains
        case Scales() as plot:
            squares = scales.collect(plot, cells)
            return scales.draw(plot, squares), squares
        case AuxiliaryQuality() as plot:
            points = auxiliary_quality.collect(plot, cells)
            return auxiliary_quality.draw(points), points
        case TrainingCurves() as plot:
            curves = training_curves.collect(plot, cells)
            return training_curves.draw(curves), curves
        case GainBars() as plot:
            bars = gain_bars.collect(plot, cells)
            return gain_bars.draw(bars), bars
        case LoggedValues() as plot:
            logged = logged_values.collect(plot, cells)
            return logged_values.draw(plot, logged), logged
        case Values() as plot:
            results = values.collect(plot, cells)
            return values.draw(plot, results), results


def write_figure(
    stem: Path, picture: Picture, records: Sequence[NamedTuple], figure: Figure, provenance: str
) -> None:
    """Write STEM.pdf, .svg, .png, .csv and .made.txt: all of them or, if one fails, none.

    `provenance` says how the numbers were measured; the metadata of the pictures holds it and the caption.
    """
    described = {"title": figure.title, "description": f"{figure.caption} {provenance}"}
    texts = {"csv": to_csv(records), PROVENANCE: f"{provenance}\n"}
    with ExitStack() as stack:
        paths = {
            suffix: stack.enter_context(replacing(stem.with_name(f"{stem.name}.{suffix}")))
            for suffix in (*_METADATA, *texts)
        }
        for suffix, keys in _METADATA.items():
            metadata = {key: described[field] if field else None for key, field in keys.items()}
            picture.savefig(paths[suffix], format=suffix, metadata=metadata)
        for suffix, text in texts.items():
            paths[suffix].write_text(text, encoding="utf-8")


def to_csv(records: Sequence[NamedTuple]) -> str:
    """Return a header of the records' fields and a line for each record; six digits, empty for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records[0]._fields)
    writer.writerows([_text(value) for value in record] for record in records)
    return text.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
