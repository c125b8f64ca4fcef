"""Gain against the share of its pretraining that the auxiliary had, ours and the published one."""

from typing import NamedTuple

from matplotlib.figure import Figure as Picture

from m2pt.config.figures import AuxiliaryQuality
from m2pt.reporting.figures.cells import FigureCells, drawn_gain, gain_fields
from m2pt.reporting.figures.style import (
    COLUMN,
    ONE_SEED,
    OURS,
    PUBLISHED,
    gain_footnote,
    gain_label,
    zero_line,
)


class QualityPoint(NamedTuple):
    """Gain with an auxiliary after `epochs` of its pretraining, a `share` (percent) of all, and its interval.

    Published gains have their own epochs and shares. One seed has a difference and no gain.
    """

    auxiliary: str
    epochs: int
    share: float
    published_epochs: int | None
    published_share: float | None
    metric: str
    seeds: int
    one_seed_difference: float | None
    gain: float | None
    interval_low: float | None
    interval_high: float | None
    significant: bool | None
    published_gain: float | None


def collect(plot: AuxiliaryQuality, cells: FigureCells) -> list[QualityPoint]:
    """Return the points in the order of their share."""
    longest = max(point.published_epochs or 1 for point in plot.points)
    records = []
    for point in plot.points:
        auxiliary = str(cells.auxiliary(point.cell))
        known = cells.plan.pretraining_epochs(auxiliary)
        assert known is not None  # else the plan has left the point out
        epochs, whole = known
        published = point.published_epochs
        records.append(
            QualityPoint(
                auxiliary,
                epochs,
                100 * epochs / whole,
                published,
                100 * published / longest if published else None,
                **gain_fields(cells.cell(point.cell)),
            )
        )
    return sorted(records, key=lambda record: record.share)


def draw(records: list[QualityPoint]) -> Picture:
    """Draw ours, with intervals, and the published gains, each with its own axis of epochs.

    Differences of one seed are gray and not joined.
    """
    picture = Picture(figsize=(COLUMN, 2.6))
    axes = picture.subplots()
    zero_line(axes)
    shares = [record.share for record in records]
    seeds, metric = records[0].seeds, records[0].metric
    form, color = ("o-", OURS) if seeds > 1 else ("o", ONE_SEED)  # a line would suggest a trend
    heights = [drawn_gain(record.gain, record.one_seed_difference) for record in records]
    axes.plot(shares, heights, form, color=color, markersize=4, label="ours")
    for record in records:
        if record.interval_low is not None and record.interval_high is not None:
            axes.vlines(record.share, record.interval_low, record.interval_high, color=OURS, linewidth=0.8)
    axes.set_xticks(shares, [str(record.epochs) for record in records])
    axes.set(
        xlabel="epochs of the auxiliary's pretraining",
        ylabel=gain_label(seeds, metric),
        xlim=(-5, 105),
    )
    published = [
        (record.published_share, record.published_gain, str(record.published_epochs))
        for record in records
        if record.published_share is not None and record.published_gain is not None
    ]
    if published:
        places, gains, epochs = zip(*published, strict=True)
        axes.plot(places, gains, "D--", color=PUBLISHED, markersize=3.5, label="published")
        above = axes.secondary_xaxis("top")
        above.set_xticks(places, epochs, color=PUBLISHED)
        above.set_xlabel("epochs, published", color=PUBLISHED)
        above.spines[:].set_visible(False)
        above.tick_params(length=0)
        axes.legend()
    axes.margins(y=0.15)
    gain_footnote(picture, seeds, "lines: 95 % interval")
    return picture
