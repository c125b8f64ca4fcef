"""Tables as data: columns, rows, the row to compare with, the run of each cell, the published numbers."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from m2pt import catalog
from m2pt.config.experiment import Balancing, Mode, PathwaySpec
from m2pt.config.names import Label, Line, Name, TaskName, Text
from m2pt.config.strict import Extended, Strict, no_duplicates
from m2pt.errors import listed
from m2pt.ranges import Percent

Setting = Literal["pretrained", "scratch", "control", "ablation", "extension"]


class Column(Extended):
    """A metric of a task on a dataset."""

    added: ClassVar[tuple[str, ...]] = ("fusion",)

    name: Name
    group: Line
    """Heading above the titles of neighboring columns."""
    title: Line
    metric: Label
    task: TaskName
    dataset: Name
    mode: Mode | None = None
    """For tasks that are finetuned. The mode of a transfer follows from the config's `freeze_backbone`."""
    transfer_from: Name | None = None
    """For transfers: dataset on which the model that they start from is finetuned."""
    fusion: Name | None = None
    """For several modalities: name of their fusion, of which the config has the recipe."""
    note: Text = ""
    """Printed below the table."""

    @model_validator(mode="after")
    def _task_has_its_keys(self) -> "Column":
        task = catalog.task(self.task)
        if self.metric not in task.metrics:
            known = listed(task.metrics)
            raise ValueError(f"column {self.name}: {self.task} has no metric {self.metric!r}; it has {known}")
        needed = catalog.kind(task.kind).column
        chosen = {"mode": self.mode, "transfer_from": self.transfer_from, "fusion": self.fusion}
        for key in needed:
            if key not in chosen:
                raise ValueError(f"kind {task.kind}: column: {key!r} is not one of {listed(chosen)}")
        for key, value in chosen.items():
            if (value is None) == (key in needed):
                verb = "needs" if value is None else "takes no"
                raise ValueError(f"column {self.name}: {self.task} {verb} {key}")
        return self


class Factors(Extended):
    """Factors that all cells of a row have in common."""

    added: ClassVar[tuple[str, ...]] = ("balancing",)

    target_init: Name
    """Name of an encoder, or "scratch"."""
    pathway: PathwaySpec | None = None
    transfer_from: Literal["finetuned", "pretrained"] | None = None
    """What the row's transfers start from, instead of what the config says."""
    balancing: Balancing | None = None
    """Method of joint training, for columns with a `fusion`."""


class Row(Strict):
    """A method."""

    method: Label
    setting: Setting
    labels: dict[Label, Text] = Field(default_factory=dict)
    """Texts of the table's descriptive columns."""
    run: Factors | None = None
    columns: tuple[Name, ...] = ()
    """Columns whose cells are run; none for a row that only quotes the paper."""
    baseline: Label | None = None
    """Method of the row to compare with: of the same setting, else of the pretrained one, else of any."""
    published: dict[Name, Percent] = Field(default_factory=dict)
    """Numbers of the paper, by column."""
    public: dict[Name, Percent] = Field(default_factory=dict)
    """Numbers that others publish for the same experiment, by column, where they differ from the paper's."""
    public_source: Text = ""
    """Where `public` is from; printed below the table."""
    note: Text = ""
    """Printed below the table."""


class Table(Strict):
    """Columns, rows and caption of one table; `labels` are descriptive columns before the measured ones."""

    title: Line
    caption: Text
    labels: tuple[Label, ...] = ()
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_exist(self) -> "Table":
        columns = [column.name for column in self.columns]
        no_duplicates("columns", columns)
        no_duplicates("rows", (f"{row.setting}/{row.method}" for row in self.rows))
        no_duplicates("labels", self.labels)
        for row in self.rows:
            for name in (*row.columns, *row.published, *row.public):
                if name not in columns:
                    raise ValueError(f"row {row.method}: no column {name!r}; columns are {listed(columns)}")
            for label in row.labels:
                if label not in self.labels:
                    raise ValueError(
                        f"row {row.method}: no label {label!r}; labels are {listed(self.labels)}"
                    )
            no_duplicates(f"row {row.method}: columns", row.columns)
            if row.columns and row.run is None:
                raise ValueError(f"row {row.method}: has columns to run, but run: is missing; add it")
            if bool(row.public) != bool(row.public_source):
                raise ValueError(f"row {row.method}: public: and public_source: go together; add the other")
            if row.baseline is not None:
                self.baseline(row)
        return self

    def baseline(self, row: Row) -> Row | None:
        """Return the row to compare `row` with: of its own setting, else of the pretrained one, else of any.

        Raises:
            ValueError: `row.baseline` names no row.
        """
        if row.baseline is None:
            return None
        named = [other for other in self.rows if other.method == row.baseline and other is not row]
        for setting in (row.setting, "pretrained"):
            for other in named:
                if other.setting == setting:
                    return other
        if named:
            return named[0]
        raise ValueError(f"row {row.method}: its baseline {row.baseline!r} is not a row of this table")
