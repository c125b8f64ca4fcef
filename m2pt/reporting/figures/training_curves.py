"""Training loss of a target's runs, read from the metrics.jsonl beside each result."""

from collections.abc import Iterator
from itertools import cycle
from statistics import fmean, stdev
from typing import NamedTuple

from matplotlib.figure import Figure as Picture

from m2pt.config.figures import TrainingCurves
from m2pt.reporting.figures.cells import FigureCells
from m2pt.reporting.figures.logs import read_logs
from m2pt.reporting.figures.style import BASELINE, COLUMN, footnote, modality_colours

_LOSS = "loss"


class CurvePoint(NamedTuple):
    """Loss of a run at one logged step, mean over seeds; the deviation (n - 1) is None with one seed.

    `modality` is the auxiliary's, None without one. `reached` is the run's final value of `metric`, in
    percent: the same on all its points.
    """

    curve: str
    modality: str | None
    run: str
    seeds: int
    step: int
    epoch: int
    loss: float
    loss_deviation: float | None
    metric: str
    reached: float
    reached_deviation: float | None


def collect(plot: TrainingCurves, cells: FigureCells) -> list[CurvePoint]:
    """Return the points of every curve, one after the other.

    Raises:
        InputError: as for `read_logs`.
    """
    return [point for title, name in plot.curves.items() for point in _curve(title, name, cells)]


def _curve(title: str, name: str, cells: FigureCells) -> list[CurvePoint]:
    cell = cells.cell(name)
    logs = [log[_LOSS] for log in read_logs(cells, name, [_LOSS])]
    modality = cells.modality_of_auxiliary(name)
    points = []
    for moment in logs[0]:
        losses = [log[moment] for log in logs]
        points.append(
            CurvePoint(
                curve=title,
                modality=modality,
                run=cell.runs[0].name,
                seeds=len(losses),
                step=moment.step,
                epoch=moment.epoch,
                loss=fmean(losses),
                loss_deviation=stdev(losses) if len(losses) > 1 else None,
                metric=f"{cell.column.group} {cell.column.title}",
                reached=fmean(cell.values.values()),
                reached_deviation=cell.deviation,
            )
        )
    return points


def draw(records: list[CurvePoint]) -> Picture:
    """Draw a curve for each run with a band of one deviation; the legend shows the final value."""
    picture = Picture(figsize=(COLUMN, 2.4))
    axes = picture.subplots()
    colors = modality_colours(record.modality for record in records if record.modality)
    dashes: dict[str | None, Iterator[str]] = {}
    for title in dict.fromkeys(record.curve for record in records):
        points = [record for record in records if record.curve == title]
        first = points[0]
        color = colors[first.modality] if first.modality else BASELINE
        spread = "" if first.reached_deviation is None else f" ± {first.reached_deviation:.1f}"
        steps = [point.step for point in points]
        axes.plot(
            steps,
            [point.loss for point in points],
            color=color,
            linestyle=next(dashes.setdefault(first.modality, cycle(("-", "--", ":", "-.")))),
            label=f"{title}: {first.reached:.1f}{spread}",
        )
        if first.loss_deviation is not None:
            low, high = (
                [point.loss + sign * (point.loss_deviation or 0) for point in points] for sign in (-1, 1)
            )
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel="optimizer step", ylabel="training loss")
    axes.legend(title=records[0].metric, title_fontsize=7, alignment="left")
    footnote(picture, records[0].seeds, "band: one standard deviation")
    return picture
