"""Names of cells: `TABLE:METHOD:COLUMN`, or `TABLE:SETTING/METHOD:COLUMN`."""

from collections.abc import Mapping
from typing import NamedTuple, get_args

from m2pt.config.tables import Column, Row, Setting, Table
from m2pt.errors import InputError, listed, short


class Place(NamedTuple):
    """The position of a cell."""

    table: str
    row: Row
    column: Column

    @property
    def name(self) -> str:
        """Full name of the cell."""
        return f"{self.table}:{self.row.setting}/{self.row.method}:{self.column.name}"


def locate(tables: Mapping[str, Table], name: str) -> Place:
    """Return the cell of this name.

    Raises:
        InputError: the name has another form, the table, method or column does not exist, or the method
            occurs in several settings; the valid names are listed.
    """
    table_name, _, rest = name.partition(":")
    name = short(name)
    method, colon, column_name = rest.rpartition(":")
    if not colon:
        raise InputError(
            f"{name}: a cell is TABLE:METHOD:COLUMN, such as table1:M2PT-Video:imagenet_tune_acc."
        )
    if table_name not in tables:
        raise InputError(f"{name}: no table {table_name!r}; the config's tables are {listed(tables)}.")
    table = tables[table_name]
    columns = {column.name: column for column in table.columns}
    if column_name not in columns:
        raise InputError(
            f"{name}: {table_name} has no column {column_name!r}; its columns are {listed(columns)}."
        )
    places = [Place(table_name, row, columns[column_name]) for row in _rows(table, method)]
    if not places:
        known = listed(f"{row.setting}/{row.method}" for row in table.rows)
        raise InputError(f"{name}: {table_name} has no method {method!r}; it has {known}.")
    if len(places) > 1:
        which = " or ".join(place.name for place in places)
        raise InputError(f"{name}: {method} occurs in several settings; give {which}.")
    return places[0]


def _rows(table: Table, method: str) -> list[Row]:
    setting, slash, name = method.partition("/")
    if slash and setting in get_args(Setting):
        return [row for row in table.rows if (row.setting, row.method) == (setting, name)]
    return [row for row in table.rows if row.method == method]
