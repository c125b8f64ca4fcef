"""The style of all figures: sizes for a paper's columns, one font, colors safe for the color-blind."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import cycle
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from m2pt import catalog

COLUMN, PAGE = 3.4, 6.9
"""Width in inches of a picture for one column of a two-column paper, and for both."""

_OTHER_COLORS = ("#56B4E9", "#882255", "#44AA99", "#999933")
"""Colors for modalities without their own: the rest of that palette, and three of Paul Tol's."""

OURS, BASELINE, PUBLISHED = "#0072B2", "#000000", "#767676"

SERIES = (OURS, *_OTHER_COLORS[1:])
"""Colors of curves that belong to no modality."""

ONE_SEED = "#B0B0B0"
"""Color of differences of one seed, whatever their sign: others would suggest gains and losses."""

DIVERGING = "RdBu"
"""Red below zero, blue above."""

_SETTINGS: dict[Any, Any] = {
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 8,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,  # embedded as TrueType: text stays text
    "savefig.bbox": "tight",  # nothing is cut
    "savefig.dpi": 300,
    "savefig.pad_inches": 0.03,
    "svg.fonttype": "path",  # needs no font on the viewer's machine
    "svg.hashsalt": "m2pt",  # ids in the file, else drawn at random
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}


def style() -> AbstractContextManager[None]:
    """Draw and save in the project's style, whatever the user's matplotlibrc says."""
    return matplotlib.style.context(_SETTINGS, after_reset=True)


def modality_colours(modalities: Iterable[str]) -> dict[str, str]:
    """Return a color for each modality: the catalog's or, without one, the next of `_OTHER_COLORS`."""
    others = cycle(_OTHER_COLORS)
    own = {name: entry.color for name, entry in catalog.MODALITIES.items()}
    return {name: own.get(name) or next(others) for name in dict.fromkeys(modalities)}


def signed(value: float, digits: int = 1) -> str:
    """Return a gain with its sign, with the minus of the axes; without a sign if it rounds to 0."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text[1:]


def gain_label(seeds: int, metric: str) -> str:
    """Return the label of an axis of gains in a metric; with one seed, of differences."""
    return f"gain in {metric}" if seeds > 1 else f"difference of one seed\nin {metric}"


def gain_footnote(picture: Picture, seeds: int, marks: str) -> None:
    """Write a footnote below a picture of gains; with one seed, say why it shows none."""
    footnote(picture, seeds, marks, "one seed cannot tell a difference from chance: no gain is shown")


def footnote(
    picture: Picture, seeds: int, marks: str, alone: str = "one seed: nothing is known of its spread"
) -> None:
    """Write below the picture the number of seeds and the meaning of the marks, or `alone` with one seed."""
    text = f"{seeds} seeds; {marks}" if seeds > 1 else alone
    picture.text(0.995, -0.01, text, ha="right", va="top", fontsize=6, color=PUBLISHED)


def zero_line(axes: Axes) -> None:
    """Draw a line at zero gain."""
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
