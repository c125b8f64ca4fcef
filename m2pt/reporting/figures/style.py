"""How all figures look: sizes for a paper's columns, one font, colours that the colour-blind tell apart."""

from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

COLUMN, PAGE = 3.4, 6.9
"""Width in inches of a picture for one column of a two-column paper, and for both."""

MODALITY = {
    "image": "#0072B2",
    "video": "#D55E00",
    "audio": "#CC79A7",
    "pointcloud": "#009E73",
    "text": "#E69F00",
}
"""Okabe and Ito's palette, a colour for each modality in all figures."""

OURS, BASELINE, PUBLISHED = "#0072B2", "#000000", "#767676"

ONE_SEED = "#B0B0B0"
"""For differences of one seed, whatever their sign: a colour would make gains and losses of them."""

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
    "svg.fonttype": "path",  # needs no font where it is shown
    "svg.hashsalt": "m2pt",  # ids in the file, else drawn at random
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}


def style() -> AbstractContextManager[None]:
    """Draw and save in the project's style, whatever a user's matplotlibrc says."""
    return matplotlib.style.context(_SETTINGS, after_reset=True)


def signed(value: float, digits: int = 1) -> str:
    """A gain with its sign, the typographic minus as on the axes; without one if it rounds to 0."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text[1:]


def gain_label(seeds: int, metric: str) -> str:
    """Label of an axis of gains in a metric; with one seed of mere differences."""
    return f"gain in {metric}" if seeds > 1 else f"difference of one seed\nin {metric}"


def gain_footnote(picture: Picture, seeds: int, marks: str) -> None:
    """Write a footnote below a picture of gains; with one seed, why it shows none."""
    footnote(picture, seeds, marks, "one seed cannot tell a difference from chance: no gain is shown")


def footnote(
    picture: Picture, seeds: int, marks: str, alone: str = "one seed: nothing is known of its spread"
) -> None:
    """Write small below the picture how many seeds there are and what the marks mean that need several.

    With one seed, write `alone` in their place.
    """
    text = f"{seeds} seeds; {marks}" if seeds > 1 else alone
    picture.text(0.995, -0.01, text, ha="right", va="top", fontsize=6, color=PUBLISHED)


def zero_line(axes: Axes) -> None:
    """Draw where there is no gain."""
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
