"""Results against a number, such as a hyper-parameter, beside results that do not depend on it."""

from itertools import cycle
from statistics import fmean
from typing import NamedTuple

from matplotlib.figure import Figure as Picture

from m2pt.config.figures import Values
from m2pt.reporting.cells import Cell
from m2pt.reporting.figures.cells import FigureCells
from m2pt.reporting.figures.style import BASELINE, COLUMN, SERIES, footnote

_MARKERS, _STYLES = "osD^v", ("--", ":", "-.")

_MOST_TICKS = 8


class ValuePoint(NamedTuple):
    """Result in percent, mean over seeds; the deviation (n - 1) is None with one seed.

    `x` is None for a reference, which is a horizontal line.
    """

    series: str
    x: float | None
    metric: str
    seeds: int
    value: float
    deviation: float | None


def collect(plot: Values, cells: FigureCells) -> list[ValuePoint]:
    """Return the points of every series in the order of their number, then the references."""
    points = [(title, x, name) for title in plot.series for x, name in plot.points(title)]
    lines = [(title, None, name) for title, name in plot.references.items()]
    return [_point(title, x, cells.cell(name)) for title, x, name in (*points, *lines)]


def _point(title: str, x: float | None, cell: Cell) -> ValuePoint:
    metric = f"{cell.column.group} {cell.column.title}"
    return ValuePoint(title, x, metric, len(cell.values), fmean(cell.values.values()), cell.deviation)


def draw(plot: Values, records: list[ValuePoint]) -> Picture:
    """Draw a curve for each series with a bar of one deviation; with one seed, points that are not joined."""
    picture = Picture(figsize=(COLUMN, 2.6))
    axes = picture.subplots()
    seeds = records[0].seeds
    for title, color, marker in zip(plot.series, cycle(SERIES), cycle(_MARKERS), strict=False):
        points = [record for record in records if record.series == title]
        axes.errorbar(
            [point.x for point in points if point.x is not None],
            [point.value for point in points],
            [point.deviation or 0 for point in points] if seeds > 1 else None,
            fmt=f"{marker}-" if seeds > 1 else marker,  # a line would suggest a trend
            color=color,
            markersize=4,
            capsize=2,
            elinewidth=0.8,
            label=title,
        )
    for title, style in zip(plot.references, cycle(_STYLES), strict=False):
        line = next(record for record in records if record.series == title)
        axes.axhline(line.value, color=BASELINE, linestyle=style, linewidth=1, label=title)
        if line.deviation is not None:
            axes.axhspan(
                line.value - line.deviation,
                line.value + line.deviation,
                color=BASELINE,
                alpha=0.08,
                linewidth=0,
            )
    if plot.log_x:
        axes.set_xscale("log")
    places = sorted({record.x for record in records if record.x is not None})
    if len(places) <= _MOST_TICKS:
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.set_xticks([], minor=True)
    metrics = list(dict.fromkeys(record.metric for record in records))
    axes.set(xlabel=plot.x_label, ylabel=metrics[0] if len(metrics) == 1 else "result (%)")
    axes.margins(y=0.1)
    axes.legend()
    footnote(picture, seeds, "bars and bands: one standard deviation")
    return picture
