"""The paper's claims as data: a sentence, its source, and the comparisons of cells that decide it."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field, model_validator

from m2pt.config.cell_names import locate
from m2pt.config.figures import CellName
from m2pt.config.names import Label, Text
from m2pt.config.strict import Strict
from m2pt.config.tables import Table
from m2pt.errors import InputError, joined

Sentence = Annotated[Text, Field(min_length=1)]


class Comparison(Strict):
    """A difference that a claim says is positive, paired by seed; cells are named as for `m2pt show`."""

    gain: CellName | None = None
    """A cell, for its gain over its row's baseline; with `than`, minus the gain of that cell."""
    value: CellName | None = None
    """A cell, for its value minus the value of `than`."""
    than: CellName | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Comparison":
        if (self.gain is None) == (self.value is None):
            raise ValueError("give either gain (a cell, over its baseline) or value (a cell, with than)")
        if self.value is not None and self.than is None:
            raise ValueError("value needs than: the cell to compare it with")
        return self

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the compared cells, the greater one first."""
        return tuple(name for name in (self.gain, self.value, self.than) if name is not None)


class Claim(Strict):
    """A claim of the paper, in our words."""

    claim: Sentence
    source: Label
    """Section of the paper."""
    comparisons: tuple[Comparison, ...] = ()
    """Comparisons that decide the claim; or `elsewhere`."""
    elsewhere: Text = ""
    """What shows the claim, if no cells do."""
    note: Text = ""
    """Caveat about the published sentence."""

    @model_validator(mode="after")
    def _is_decided(self) -> "Claim":
        if bool(self.comparisons) == bool(self.elsewhere):
            raise ValueError("give either comparisons (of cells) or elsewhere (what shows the claim)")
        return self


class Claims(Strict):
    """All claims, in the paper's order."""

    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of all compared cells."""
        names = [n for claim in self.claims for comparison in claim.comparisons for n in comparison.cells]
        return tuple(dict.fromkeys(names))

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that the cells are in."""
        return tuple(dict.fromkeys(name.partition(":")[0] for name in self.cells))


def check_comparisons(claims: Claims, tables: Mapping[str, Table], path: str) -> Claims:
    """Return the claims of the file `path` after checking that the cells that they compare exist.

    Raises:
        InputError: a cell does not exist, is not run, or has no baseline; all of them are named.
    """
    comparisons = (comparison for claim in claims.claims for comparison in claim.comparisons)
    if faults := [fault for comparison in comparisons for fault in _faults(comparison, tables)]:
        raise joined(InputError(f"{path}: {fault}") for fault in faults)
    return claims


def _faults(comparison: Comparison, tables: Mapping[str, Table]) -> Iterator[str]:
    for name in comparison.cells:
        try:
            place = locate(tables, name)
        except InputError as error:
            yield str(error)
            continue
        rows = [place.row]
        if comparison.gain is not None:
            baseline = tables[place.table].baseline(place.row)
            if baseline is None:
                yield f"{name}: has no gain, since its row has no baseline."
                continue
            rows.append(baseline)
        for row in rows:
            if place.column.name not in row.columns:
                yield f"{name}: row {row.method} does not run {place.column.name}; add it there."
