"""A bar for each gain with its interval; with one seed, for each difference."""

from typing import NamedTuple

from matplotlib.figure import Figure as Picture

from m2pt.config.figures import GainBars
from m2pt.reporting.figures.cells import FigureCells, drawn_gain, gain_fields
from m2pt.reporting.figures.style import (
    COLUMN,
    ONE_SEED,
    OURS,
    PUBLISHED,
    gain_footnote,
    gain_label,
    signed,
    zero_line,
)


class Bar(NamedTuple):
    """A gain over its baseline, in points of the metric, with its 95 % interval.

    `significant`: the interval excludes 0. One seed has a difference to its baseline and no gain.
    """

    bar: str
    metric: str
    seeds: int
    one_seed_difference: float | None
    gain: float | None
    interval_low: float | None
    interval_high: float | None
    significant: bool | None
    published_gain: float | None


def collect(plot: GainBars, cells: FigureCells) -> list[Bar]:
    """Return the bars in the plot's order."""
    return [Bar(title, **gain_fields(cells.cell(name))) for title, name in plot.bars.items()]


def draw(records: list[Bar]) -> Picture:
    """Draw the bars side by side; a gain whose interval excludes 0 is bold and has an asterisk.

    Differences of one seed are gray.
    """
    picture = Picture(figsize=(COLUMN, 2.2))
    axes = picture.subplots()
    zero_line(axes)
    axes.set_xticks(range(len(records)), [record.bar for record in records])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(gain_label(records[0].seeds, records[0].metric))
    for place, record in enumerate(records):
        height = drawn_gain(record.gain, record.one_seed_difference)
        axes.bar(place, height, width=0.6, color=OURS if record.seeds > 1 else ONE_SEED)
        ends = [height]
        if record.interval_low is not None and record.interval_high is not None:
            ends = [record.interval_low, record.interval_high]
            axes.vlines(place, min(ends), max(ends), color="black", linewidth=0.8)
        above = height >= 0
        axes.annotate(
            signed(height) + "*" * bool(record.significant),
            (place, max(ends) if above else min(ends)),
            (0, 2 if above else -2),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=7,
            fontweight="bold" if record.significant else "normal",
        )
    published = [
        (place, gain) for place, record in enumerate(records) if (gain := record.published_gain) is not None
    ]
    for place, gain in published:
        axes.hlines(gain, place - 0.4, place + 0.4, color=PUBLISHED, linestyles="dashed", label="published")
    if published:
        handles, labels = axes.get_legend_handles_labels()
        # Inside the axes, the legend's dash would look like another published gain.
        picture.legend(handles[:1], labels[:1], loc="outside upper left")
    axes.margins(y=0.15)
    gain_footnote(picture, records[0].seeds, "lines: 95 % interval; * and bold: it excludes 0")
    return picture
