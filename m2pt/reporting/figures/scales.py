"""The learned cross-modal scales of every auxiliary × target pair, by layer and depth."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import MaxNLocator

from m2pt.config.experiment import LAYERS
from m2pt.config.figures import Scales
from m2pt.errors import InputError
from m2pt.reporting.figures.cells import FigureCells
from m2pt.reporting.figures.style import DIVERGING, PAGE, footnote
from m2pt.results import Evaluation, read

_NAME = re.compile(r"blocks\.(?P<block>\d{1,3})\.(?P<layer>attn\.\w+|mlp\.\w+)\.pathways\.[^.]+\.scale")


class Scale(NamedTuple):
    """One scale of one run; blocks count from 1, as in the paper."""

    auxiliary: str
    target: str
    run: str
    seed: int
    block: int
    layer: str
    scale: float


def collect(plot: Scales, cells: FigureCells) -> list[Scale]:
    """Return every scale of every run of the pairs.

    Raises:
        InputError: a result stores no scales.
    """
    return [
        Scale(plot.auxiliaries[auxiliary], target.title, run.name, seed, block, layer, value)
        for auxiliary, target in plot.pairs()
        for run, seed, path in cells.results(target.cells[auxiliary])
        for block, layer, value in _read(path, cells.plan.command(path, again=True))
    ]


def _read(path: Path, command: str) -> Iterator[tuple[int, str, float]]:
    stored = read(Evaluation, path).scales
    if not stored:
        raise InputError(f"{path}: stores no scales; make it again with: {command}")
    for name, value in stored.items():
        match = _NAME.fullmatch(name)
        if match is None or match["layer"] not in LAYERS:
            raise InputError(
                f"{path}: {name!r} is not a scale of a transformer block; leave its pair out of the figure."
            )
        yield int(match["block"]) + 1, match["layer"], value


def draw(plot: Scales, records: list[Scale]) -> Picture:
    """Draw a column of panels for each target: layers × blocks, the mean over runs and seeds.

    Each target has its own color range: next to scales that are ten times as large, others would look white.
    """
    found: dict[tuple[str, str], dict[tuple[str, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        found[record.auxiliary, record.target][record.layer, record.block].append(record.scale)
    layers = [layer for layer in LAYERS if any(record.layer == layer for record in records)]
    blocks = range(1, max(record.block for record in records) + 1)
    means = {
        pair: np.array(
            [[fmean(values.get((layer, block), [math.nan])) for block in blocks] for layer in layers]
        )
        for pair, values in found.items()
    }

    height = max(len(target.cells) for target in plot.targets)
    picture = Picture(figsize=(PAGE, 1.1 + 0.9 * height))
    grid = picture.subplots(height, len(plot.targets), sharex=True, sharey=True, squeeze=False)
    for target, column in zip(plot.targets, grid.T, strict=True):
        names = [title for name, title in plot.auxiliaries.items() if name in target.cells]
        for axes in column[len(names) :]:
            axes.set_visible(False)
        largest = max(np.nanmax(np.abs(means[auxiliary, target.title])) for auxiliary in names)
        norm = CenteredNorm(halfrange=largest or 1)
        for axes, auxiliary in zip(column, names, strict=False):
            axes.imshow(means[auxiliary, target.title], cmap=DIVERGING, norm=norm, aspect="auto")
            axes.set_title(f"{auxiliary} → {target.title}")
            axes.grid(False)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        visible = list(column[: len(names)])
        visible[-1].set_xlabel("block")
        bar = picture.colorbar(
            ScalarMappable(norm, DIVERGING), ax=visible, location="bottom", aspect=18, fraction=0.06
        )
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(3, symmetric=True)
        bar.set_label("cross-modal scale λ")
    step = math.ceil(len(blocks) / 6)
    grid[0, 0].set_xticks(range(len(blocks))[::step], blocks[::step])
    grid[0, 0].set_yticks(range(len(layers)), [layer.partition(".")[2] for layer in layers])
    footnote(picture, len({record.seed for record in records}), "each square is their mean")
    return picture
