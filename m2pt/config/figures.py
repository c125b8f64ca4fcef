"""Figures as data: a kind of plot, and the table cells that it shows, named as for `m2pt show`."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from math import isfinite
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from m2pt import catalog
from m2pt.config.cell_names import locate
from m2pt.config.names import ONE_LINE, Label, Line, Name, Text
from m2pt.config.strict import Strict, no_duplicates
from m2pt.config.tables import Table
from m2pt.errors import InputError, joined, listed
from m2pt.ranges import Epoch

CellName = Annotated[str, Field(min_length=1, max_length=500, pattern=ONE_LINE)]
"""As in `m2pt.config.cell_names`."""

Gain = Annotated[float, Field(ge=-100, le=100)]
"""In percentage points."""


def _finite(text: str) -> str:
    try:
        finite = isfinite(float(text))
    except ValueError:
        finite = False
    if not finite:
        raise ValueError("must be a number")
    return text


Abscissa = Annotated[str, Field(max_length=30), AfterValidator(_finite)]
"""A number as the key of a mapping, where YAML has strings only."""


class Plot(Strict, ABC):
    """Base of the kinds of plot: they show cells, and declare the requirements of a cell."""

    needs_gain: ClassVar[bool] = True
    needs_auxiliary: ClassVar[bool] = False
    """Whether each cell must have exactly one auxiliary."""
    needs_epochs: ClassVar[bool] = False
    """Whether a cell is only drawn if the length of its auxiliary's pretraining is known in epochs."""
    marks: ClassVar[str]
    """How to read the plot, with several seeds and with one: a sentence for its caption."""

    @abstractmethod
    def cell_names(self) -> Iterator[str]:
        """Yield the names of the cells in the plot."""

    @abstractmethod
    def without(self, names: Collection[str]) -> Self | None:
        """Return the plot without the cells of these names; None if there is nothing left to draw."""


Key = TypeVar("Key")


def _others(cells: Mapping[Key, str], names: Collection[str]) -> dict[Key, str]:
    return {key: cell for key, cell in cells.items() if cell not in names}


class Target(Strict):
    """A target in a grid of auxiliary × target."""

    title: Label
    cells: Annotated[dict[Name, CellName], Field(min_length=1)]
    """The pairs' cells, by auxiliary."""
    published: dict[Name, Gain] = Field(default_factory=dict)
    """Gains of the paper's figure that differ from its tables, by auxiliary."""

    @model_validator(mode="after")
    def _published_gains_have_a_cell(self) -> "Target":
        for name in self.published:
            if name not in self.cells:
                raise ValueError(
                    f"published: auxiliary {name!r} has no cell here; cells: {listed(self.cells)}"
                )
        return self


class Grid(Plot):
    """Auxiliaries (rows: names and titles) × targets (columns); a pair without a cell is empty."""

    auxiliaries: Annotated[dict[Name, Label], Field(min_length=1)]
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _titles_differ(self) -> "Grid":
        no_duplicates("auxiliaries: titles", self.auxiliaries.values())
        no_duplicates("targets: titles", (target.title for target in self.targets))
        return self

    @model_validator(mode="after")
    def _auxiliaries_exist(self) -> "Grid":
        for target in self.targets:
            for name in target.cells:
                if name not in self.auxiliaries:
                    known = listed(self.auxiliaries)
                    raise ValueError(
                        f"target {target.title}: no auxiliary {name!r}; the auxiliaries are {known}"
                    )
        return self

    def pairs(self) -> Iterator[tuple[str, Target]]:
        """Yield the (auxiliary, target) pairs that have a cell, row by row."""
        for auxiliary in self.auxiliaries:
            for target in self.targets:
                if auxiliary in target.cells:
                    yield auxiliary, target

    def cell_names(self) -> Iterator[str]:
        """Yield the names of the pairs' cells."""
        for auxiliary, target in self.pairs():
            yield target.cells[auxiliary]

    def without(self, names: Collection[str]) -> Self | None:
        """Return the grid without these cells, nor rows and columns of which none is left."""
        rest = {target.title: _others(target.cells, names) for target in self.targets}
        targets = tuple(
            target.model_copy(update={"cells": rest[target.title]})
            for target in self.targets
            if rest[target.title]
        )
        used = {name for cells in rest.values() for name in cells}
        auxiliaries = {name: title for name, title in self.auxiliaries.items() if name in used}
        return self.model_copy(update={"auxiliaries": auxiliaries, "targets": targets}) if targets else None


_GAINS = (
    "With several seeds gains are paired by seed; {}. With one seed ours are differences, drawn gray, and no "
    "gains, since one seed cannot tell them from chance."
)

_MARKED = _GAINS.format("{} the 95 % interval, and an asterisk marks a gain whose interval excludes 0")


class GainMatrix(Grid):
    """The paper's Figure 3: the gain of every pair, ours beside the published one."""

    kind: Literal["gain_matrix"]
    marks: ClassVar[str] = _MARKED.format("brackets hold")


class Scales(Grid):
    """The learned cross-modal scales of every pair, by layer and depth."""

    kind: Literal["scales"]
    marks: ClassVar[str] = "With several seeds a square is the mean over them."
    needs_gain: ClassVar[bool] = False
    needs_auxiliary: ClassVar[bool] = True


class Point(Strict):
    """A cell with an auxiliary that was pretrained for some epochs."""

    cell: CellName
    published_epochs: Epoch | None = None
    """Epochs of the auxiliary in the paper."""


class AuxiliaryQuality(Plot):
    """Gain against the epochs of the auxiliary's pretraining."""

    kind: Literal["auxiliary_quality"]
    marks: ClassVar[str] = _GAINS.format("a line spans the 95 % interval")
    points: Annotated[tuple[Point, ...], Field(min_length=2)]
    needs_auxiliary: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = True

    def cell_names(self) -> Iterator[str]:
        """Yield the names of the points' cells."""
        yield from (point.cell for point in self.points)

    def without(self, names: Collection[str]) -> Self | None:
        """Return the plot without the points of these cells."""
        points = tuple(point for point in self.points if point.cell not in names)
        return self.model_copy(update={"points": points}) if points else None


class TrainingCurves(Plot):
    """Training loss and final result of a target's runs; cells by the curves' titles."""

    kind: Literal["training_curves"]
    marks: ClassVar[str] = (
        "With several seeds a curve is the mean over them, its band one standard deviation."
    )
    curves: Annotated[dict[Label, CellName], Field(min_length=1)]
    needs_gain: ClassVar[bool] = False

    def cell_names(self) -> Iterator[str]:
        """Yield the names of the curves' cells."""
        yield from self.curves.values()

    def without(self, names: Collection[str]) -> Self | None:
        """Return the plot without the curves of these cells."""
        curves = _others(self.curves, names)
        return self.model_copy(update={"curves": curves}) if curves else None


class GainBars(Plot):
    """A bar for each gain, for example of pathways in a third of the depth; cells by the bars' titles."""

    kind: Literal["gain_bars"]
    marks: ClassVar[str] = _MARKED.format("a line spans")
    bars: Annotated[dict[Label, CellName], Field(min_length=1)]

    def cell_names(self) -> Iterator[str]:
        """Yield the names of the bars' cells."""
        yield from self.bars.values()

    def without(self, names: Collection[str]) -> Self | None:
        """Return the plot without the bars of these cells."""
        bars = _others(self.bars, names)
        return self.model_copy(update={"bars": bars}) if bars else None


class LoggedValues(Plot):
    """Curves of what trainings log in metrics.jsonl: a color for each key, a line style for each cell."""

    kind: Literal["logged_values"]
    marks: ClassVar[str] = (
        "With several seeds a curve is the mean over them, its band one standard deviation. Against the "
        "epoch, what is logged several times in an epoch is averaged."
    )
    panels: Annotated[dict[Label, Annotated[tuple[Label, ...], Field(min_length=1)]], Field(min_length=1)]
    """Keys of metrics.jsonl, by the panels' titles."""
    cells: Annotated[dict[Label, CellName], Field(min_length=1, max_length=4)]
    """Cells by their titles; at most as many as there are line styles."""
    x: Literal["epoch", "step"] = "epoch"
    log: tuple[Label, ...] = ()
    """Panels whose values have a logarithmic axis."""
    needs_gain: ClassVar[bool] = False

    @model_validator(mode="after")
    def _colors_differ(self) -> "LoggedValues":
        for title, keys in self.panels.items():
            no_duplicates(f"panel {title}: keys", keys)
            shown: dict[str, str] = {}
            for key in keys:
                modality = modality_of(key)
                other = shown.setdefault(modality, key) if modality else key
                if other != key:
                    raise ValueError(
                        f"panel {title}: {other} and {key} would both have the color of {modality}; put "
                        "them in two panels"
                    )
        return self

    @model_validator(mode="after")
    def _logarithmic_panels_exist(self) -> "LoggedValues":
        no_duplicates("log", self.log)
        for title in self.log:
            if title not in self.panels:
                raise ValueError(f"log: no panel {title!r}; the panels are {listed(self.panels)}")
        return self

    def cell_names(self) -> Iterator[str]:
        """Yield the names of the cells."""
        yield from self.cells.values()

    def without(self, names: Collection[str]) -> Self | None:
        """Return the plot without the curves of these cells."""
        cells = _others(self.cells, names)
        return self.model_copy(update={"cells": cells}) if cells else None


def modality_of(key: str) -> str | None:
    """Return the modality at the end of a logged key, such as audio in `score/audio` or `val_top1_audio`.

    None if the key ends with no modality of the catalog.
    """
    longest_first = sorted(catalog.MODALITIES, key=len, reverse=True)
    return next((name for name in longest_first if f"/{key}".endswith((f"/{name}", f"_{name}"))), None)


class Values(Plot):
    """Results against a number, such as a hyper-parameter."""

    kind: Literal["values"]
    marks: ClassVar[str] = (
        "With several seeds a point or a horizontal line is the mean over them, its bar or band one standard "
        "deviation. Points of one seed are not joined, since their differences may be chance."
    )
    series: Annotated[
        dict[Label, Annotated[dict[Abscissa, CellName], Field(min_length=1)]], Field(min_length=1)
    ]
    """Cells by their numbers, by the titles of the series."""
    x_label: Label
    """What the numbers are."""
    log_x: bool = False
    references: dict[Label, CellName] = Field(default_factory=dict)
    """Cells without such a number, drawn as horizontal lines, by the lines' titles."""
    needs_gain: ClassVar[bool] = False

    @model_validator(mode="after")
    def _titles_and_numbers_differ(self) -> "Values":
        no_duplicates("series and references: titles", (*self.series, *self.references))
        for title in self.series:
            no_duplicates(f"series {title}", (x for x, _ in self.points(title)))
        return self

    @model_validator(mode="after")
    def _numbers_fit_the_axis(self) -> "Values":
        for title in self.series:
            x, _ = self.points(title)[0]
            if self.log_x and x <= 0:
                raise ValueError(
                    f"series {title}: {x:g} has no place on a logarithmic axis; leave out log_x, or make it "
                    "a reference"
                )
        return self

    def points(self, title: str) -> list[tuple[float, str]]:
        """Return the (number, cell) pairs of a series, sorted by the number."""
        return sorted((float(text), name) for text, name in self.series[title].items())

    def cell_names(self) -> Iterator[str]:
        """Yield the names of the points' cells, then those of the references."""
        for points in self.series.values():
            yield from points.values()
        yield from self.references.values()

    def without(self, names: Collection[str]) -> Self | None:
        """Return the plot without these cells, nor series of which none is left; None without a series."""
        series = {title: rest for title, cells in self.series.items() if (rest := _others(cells, names))}
        changes = {"series": series, "references": _others(self.references, names)}
        return self.model_copy(update=changes) if series else None


class Figure(Strict):
    """Title, caption and plot of one figure."""

    title: Line
    caption: Text
    plot: Annotated[
        GainMatrix | Scales | AuxiliaryQuality | TrainingCurves | GainBars | LoggedValues | Values,
        Field(discriminator="kind"),
    ]

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that the cells are in."""
        return tuple(dict.fromkeys(name.partition(":")[0] for name in self.plot.cell_names()))


def check_cells(figure: Figure, tables: Mapping[str, Table], path: str) -> Figure:
    """Return the figure of the file `path` after checking that its cells exist and fit its plot.

    Raises:
        InputError: a table, row or column does not exist, or a cell is not run or lacks the gain or the
            auxiliary that the plot needs; all of them are named.
    """
    faults = [fault for name in figure.plot.cell_names() if (fault := _fault(name, figure.plot, tables))]
    if faults:
        raise joined(InputError(f"{path}: {fault}") for fault in faults)
    return figure


def _fault(name: str, plot: Plot, tables: Mapping[str, Table]) -> str | None:
    """Return the problem of a cell in one sentence; None if there is none."""
    try:
        table, row, column = locate(tables, name)
    except InputError as error:
        return str(error)
    if row.run is None or column.name not in row.columns:
        return f"{name}: row {row.method} does not run {column.name}; add it to the row's columns."
    if plot.needs_auxiliary and len(row.run.pathway.auxiliaries if row.run.pathway else ()) != 1:
        return f"{name}: the plot needs one auxiliary per row, but row {row.method} attaches none or several."
    if plot.needs_gain:
        baseline = tables[table].baseline(row)
        if baseline is None or column.name not in baseline.columns:
            return f"{name}: row {row.method} has no gain in {column.name}; give it a baseline that runs it."
    return None
