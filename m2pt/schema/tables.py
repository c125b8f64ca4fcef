"""A table is data: columns, rows, each row's baseline, the run behind a cell, the published number."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from m2pt.errors import listed
from m2pt.schema.base import Strict, no_duplicates
from m2pt.schema.config import Name
from m2pt.schema.experiments import METRICS, TRANSFERS, Mode, PathwaySpec, Task
from m2pt.schema.ranges import Label, Line, Percent, Text

Setting = Literal["pretrained", "scratch", "control", "ablation", "extension"]


class Column(Strict):
    """A metric of a task on a dataset; `transfer_from` names the dataset on which the start was finetuned.

    `mode` is for tasks that are finetuned; for a dense task it follows from the config's freeze_backbone.
    `note` is printed below the table.
    """

    name: Name
    group: Line
    title: Line
    metric: Label
    task: Task
    dataset: Name
    mode: Mode | None = None
    transfer_from: Name | None = None
    note: Text = ""

    @model_validator(mode="after")
    def _task_has_its_keys(self) -> "Column":
        if self.metric not in METRICS[self.task]:
            known = ", ".join(METRICS[self.task])
            raise ValueError(f"column {self.name}: {self.task} has no metric {self.metric!r}; it has {known}")
        dense = self.task in TRANSFERS
        if dense == (self.mode is not None):
            raise ValueError(f"column {self.name}: mode is for tasks that are finetuned, and they need it")
        if dense != (self.transfer_from is not None):
            raise ValueError(f"column {self.name}: transfer_from is for dense tasks, and they need it")
        return self


class Factors(Strict):
    """What a row fixes for all its cells.

    `transfer_from: pretrained` lets the row's dense tasks start without finetuning, whatever the config says.
    """

    target_init: Name
    pathway: PathwaySpec | None = None
    transfer_from: Literal["finetuned", "pretrained"] | None = None


class Row(Strict):
    """A method; `columns` are the cells that are run, none for a row that is quoted only.

    `labels` fill the table's descriptive columns; `baseline` names another row of its setting, else of the
    pretrained setting, else of any.
    """

    method: Label
    setting: Setting
    labels: dict[Label, Text] = Field(default_factory=dict)
    run: Factors | None = None
    columns: tuple[Name, ...] = ()
    baseline: Label | None = None
    published: dict[Name, Percent] = Field(default_factory=dict)
    note: Text = ""


class Table(Strict):
    """Columns, rows and caption of one table; `labels` are descriptive columns before the measured ones."""

    title: Line
    caption: Text
    labels: tuple[Label, ...] = ()
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_exist(self) -> "Table":
        columns = {column.name for column in self.columns}
        no_duplicates("columns", (column.name for column in self.columns))
        no_duplicates("rows", (f"{row.setting}/{row.method}" for row in self.rows))
        no_duplicates("labels", self.labels)
        for row in self.rows:
            for name in (*row.columns, *row.published):
                if name not in columns:
                    raise ValueError(
                        f"row {row.method}: no column {name!r}; columns are {', '.join(columns)}"
                    )
            for label in row.labels:
                if label not in self.labels:
                    raise ValueError(
                        f"row {row.method}: no label {label!r}; labels are {listed(self.labels)}"
                    )
            no_duplicates(f"row {row.method}: columns", row.columns)
            if row.columns and row.run is None:
                raise ValueError(f"row {row.method}: cells are to be run but run: is missing")
            if row.baseline is not None:
                self.baseline(row)
        return self

    def baseline(self, row: Row) -> Row | None:
        """Return the row that `row` is compared with: of its own setting, else the pretrained, else any.

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
