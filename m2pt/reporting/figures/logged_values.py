"""Scalars that trainings logged, such as a method's coefficients, against the epoch or the step."""

import math
from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from m2pt.config.figures import LoggedValues, modality_of
from m2pt.errors import InputError
from m2pt.reporting.figures.cells import FigureCells
from m2pt.reporting.figures.logs import Log, Moment, read_logs
from m2pt.reporting.figures.style import BASELINE, COLUMN, PAGE, footnote, modality_colours

_Style = Literal["-", "--", ":", "-."]

_STYLES: tuple[_Style, ...] = ("-", "--", ":", "-.")


class LoggedPoint(NamedTuple):
    """A logged value, mean over seeds; the deviation (n - 1) is None with one seed.

    Against the epoch it is first averaged over each epoch, whose last step with a value is `step`. `modality`
    is the one that the key names, None without one.
    """

    panel: str
    key: str
    modality: str | None
    cell: str
    run: str
    seeds: int
    step: int
    epoch: int
    value: float
    deviation: float | None


def collect(plot: LoggedValues, cells: FigureCells) -> list[LoggedPoint]:
    """Return the points of every curve, panel by panel.

    Raises:
        InputError: as for `read_logs`; or no value of a panel has a logarithm.
    """
    keys = list(dict.fromkeys(key for keys in plot.panels.values() for key in keys))
    logs = {title: read_logs(cells, name, keys) for title, name in plot.cells.items()}
    runs = {title: cells.cell(name).runs[0].name for title, name in plot.cells.items()}
    records = [
        LoggedPoint(panel, key, modality_of(key), title, runs[title], len(logs[title]), *point)
        for panel, keys_of_panel in plot.panels.items()
        for key in keys_of_panel
        for title in plot.cells
        for point in _curve(logs[title], key, plot.x == "epoch")
    ]
    for panel in plot.log:
        if all(record.value <= 0 for record in records if record.panel == panel):
            raise InputError(
                f"panel {panel} has no value above 0 for its logarithmic axis; take it out of `log`."
            )
    return records


def _curve(logs: list[Log], key: str, by_epoch: bool) -> Iterator[tuple[int, int, float, float | None]]:
    """Yield step, epoch, mean and deviation over the seeds."""
    every = [_by_epoch(log[key]) if by_epoch else log[key] for log in logs]
    for moment in every[0]:
        values = [log[moment] for log in every]
        yield *moment, fmean(values), stdev(values) if len(values) > 1 else None


def _by_epoch(values: dict[Moment, float]) -> dict[Moment, float]:
    """Return the mean of each epoch's values, at its last moment."""
    epochs: dict[int, list[Moment]] = defaultdict(list)
    for moment in values:
        epochs[moment.epoch].append(moment)
    return {max(moments): fmean(values[moment] for moment in moments) for moments in epochs.values()}


def draw(plot: LoggedValues, records: list[LoggedPoint]) -> Picture:
    """Draw a panel for each group of keys: a color for each key, a line style for each cell.

    A key without a modality is black if it is the first of its panel. What is not above 0 falls below a
    logarithmic axis.
    """
    columns = min(len(plot.panels), 3)
    rows = math.ceil(len(plot.panels) / columns)
    picture = Picture(figsize=(COLUMN, 2.4) if columns == 1 else (PAGE, 0.4 + 2 * rows))
    grid = picture.subplots(rows, columns, squeeze=False).flatten()
    colors = modality_colours(record.modality or record.key for record in records)
    styles = dict(zip(plot.cells, _STYLES, strict=False))
    for panel, axes in zip(plot.panels, grid, strict=False):
        points = [record for record in records if record.panel == panel]
        others = [record.key for record in points if record.modality is None]
        _draw_panel(axes, plot, points, colors | dict.fromkeys(others[:1], BASELINE), styles)
        axes.set(title=panel, xlabel="epoch" if plot.x == "epoch" else "optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if panel in plot.log:
            _make_logarithmic(axes, min(point.value for point in points if point.value > 0))
    for axes in grid[len(plot.panels) :]:
        axes.set_visible(False)
    if len(styles) > 1:
        handles = [Line2D([], [], color=BASELINE, linestyle=style) for style in styles.values()]
        picture.legend(handles, list(styles), loc="outside upper center", ncols=len(styles))
    footnote(picture, records[0].seeds, "band: one standard deviation")
    return picture


def _draw_panel(
    axes: Axes,
    plot: LoggedValues,
    records: list[LoggedPoint],
    colors: dict[str, str],
    styles: dict[str, _Style],
) -> None:
    curves: dict[tuple[str, str], list[LoggedPoint]] = defaultdict(list)
    for record in records:
        curves[record.key, record.cell].append(record)
    for (_, cell), points in curves.items():
        name = points[0].modality or points[0].key
        places = [point.epoch if plot.x == "epoch" else point.step for point in points]
        values = [point.value for point in points]
        axes.plot(
            places,
            values,
            color=colors[name],
            linestyle=styles[cell],
            marker="" if len(points) > 1 else ".",
            label=name if cell == next(iter(styles)) else None,
        )
        if points[0].deviation is not None:
            low, high = (
                [point.value + sign * (point.deviation or 0) for point in points] for sign in (-1, 1)
            )
            axes.fill_between(places, low, high, color=colors[name], alpha=0.15, linewidth=0)
    axes.legend()


def _make_logarithmic(axes: Axes, lowest: float) -> None:
    """Give a panel a logarithmic axis that begins just below its lowest curve, not its lowest band."""
    axes.set_yscale("log")
    axes.set_ylim(bottom=lowest / 1.2)
    bottom, top = axes.get_ylim()
    if top / bottom < 5:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    else:  # with ticks between the powers of ten, matplotlib shows none at all if there are many powers
        subs = (1, 2, 5) if top / bottom < 100 else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
