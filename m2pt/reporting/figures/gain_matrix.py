"""The gain of every auxiliary × target pair, ours beside the published one (the paper's Figure 3)."""

import textwrap
from typing import NamedTuple

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, to_rgba
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Rectangle

from m2pt.config.figures import GainMatrix
from m2pt.reporting.figures.cells import FigureCells, drawn_gain, gain_fields
from m2pt.reporting.figures.style import DIVERGING, ONE_SEED, PAGE, gain_footnote, signed


class PairGain(NamedTuple):
    """Gain of one pair over the target's baseline, in points of the metric, with its 95 % interval.

    `significant`: the interval excludes 0. One seed has a difference to the baseline and no gain.
    """

    auxiliary: str
    target: str
    metric: str
    seeds: int
    one_seed_difference: float | None
    gain: float | None
    interval_low: float | None
    interval_high: float | None
    significant: bool | None
    published_gain: float | None


def collect(plot: GainMatrix, cells: FigureCells) -> list[PairGain]:
    """Return the gain of every pair that the plot has, row by row."""
    records = []
    for auxiliary, target in plot.pairs():
        fields = gain_fields(cells.cell(target.cells[auxiliary]))
        if auxiliary in target.published:
            fields["published_gain"] = target.published[auxiliary]
        records.append(PairGain(plot.auxiliaries[auxiliary], target.title, **fields))
    return records


def draw(plot: GainMatrix, records: list[PairGain]) -> Picture:
    """Draw two matrices in one color scale; a gain whose interval excludes 0 is bold and has an asterisk.

    Below each target is the metric of its gains. Differences of one seed are gray.
    """
    several = records[0].seeds > 1
    rows = list(plot.auxiliaries.values())
    columns = [target.title for target in plot.targets]
    metrics = {record.target: record.metric.removesuffix(" (%)") for record in records}
    titles = [f"{column}\n{textwrap.fill(metrics[column], 12)}" for column in columns]
    gains = [gain for record in records for gain in (record.gain, record.published_gain) if gain is not None]
    norm = CenteredNorm(halfrange=max(map(abs, gains), default=0) or 1)
    picture = Picture(figsize=(PAGE, 1.2 + 0.42 * len(rows)))
    left, right = picture.subplots(1, 2, sharey=True)
    heading = "Ours" if several else "Ours: differences of one seed"
    for axes, title in ((left, heading), (right, "Published")):
        axes.set_title(title, fontweight="bold")
        _lay_out(axes, rows, titles)
    left.set_ylabel("auxiliary")
    for record in records:
        place = columns.index(record.target), rows.index(record.auxiliary)
        value = drawn_gain(record.gain, record.one_seed_difference)
        color = colormaps[DIVERGING](norm(value)) if several else to_rgba(ONE_SEED)
        _fill(left, place, value, color, _interval(record), significant=bool(record.significant))
        if record.published_gain is not None:
            _fill(right, place, record.published_gain, colormaps[DIVERGING](norm(record.published_gain)))
    bar = picture.colorbar(ScalarMappable(norm, DIVERGING), ax=[left, right], pad=0.01, aspect=25)
    bar.set_label("gain (points)" if several else "published gain (points)")
    bar.outline.set_visible(False)
    gain_footnote(picture, records[0].seeds, "in brackets the 95 % interval; * and bold: it excludes 0")
    return picture


def _lay_out(axes: Axes, rows: list[str], columns: list[str]) -> None:
    """Set up the axes with an empty, labeled place for every pair."""
    axes.set_xticks(range(len(columns)), columns, fontsize=6)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel="target", xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _fill(
    axes: Axes,
    place: tuple[int, int],
    gain: float,
    color: tuple[float, float, float, float],
    interval: str = "",
    *,
    significant: bool = False,
) -> None:
    """Color one place, write the gain into it and the interval below."""
    red, green, blue, _ = color
    ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"
    column, row = place
    axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=color, linewidth=0))
    axes.text(
        column,
        row - 0.12 * bool(interval),
        signed(gain) + "*" * significant,
        color=ink,
        fontweight="bold" if significant else "normal",
        ha="center",
        va="center",
    )
    axes.text(column, row + 0.25, interval, color=ink, fontsize=5.5, ha="center", va="center")


def _interval(record: PairGain) -> str:
    if record.interval_low is None or record.interval_high is None:
        return ""
    ends = record.interval_low, record.interval_high
    digits = 2 if max(map(abs, ends)) < 10 else 1  # as many as fit
    return f"[{', '.join(signed(end, digits) for end in ends)}]"
