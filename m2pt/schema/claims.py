"""The paper's claims as data: a sentence, where it stands, and the comparisons of cells that decide it."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from m2pt.errors import InputError
from m2pt.schema.base import Strict, read_part
from m2pt.schema.cell_names import locate
from m2pt.schema.experiments import digest
from m2pt.schema.figures import CellName
from m2pt.schema.ranges import Label, Text

if TYPE_CHECKING:
    from m2pt.schema.plan import Plan


Sentence = Annotated[Text, Field(min_length=1)]


class Comparison(Strict):
    """What a claim says is greater than 0; cells are named as for `m2pt show`.

    `gain`: a cell's gain over its row's baseline; with `than`, that gain minus the gain of another cell.
    `value` and `than`: a cell's value minus that of another cell. All of them are paired by seed.
    """

    gain: CellName | None = None
    value: CellName | None = None
    than: CellName | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Comparison":
        if (self.gain is None) == (self.value is None):
            raise ValueError("give gain (a cell, over its baseline) or value (a cell, with than), not both")
        if self.value is not None and self.than is None:
            raise ValueError("value needs than: the cell that it is compared with")
        return self

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells that are compared, the greater one first."""
        return tuple(name for name in (self.gain, self.value, self.than) if name is not None)


class Claim(Strict):
    """A claim in our words; `source` is the paper's section.

    It is decided by `comparisons`, or no matter of cells: then `elsewhere` says what shows it. `note` says
    what is odd about the published sentence.
    """

    claim: Sentence
    source: Label
    comparisons: tuple[Comparison, ...] = ()
    elsewhere: Text = ""
    note: Text = ""

    @model_validator(mode="after")
    def _is_decided(self) -> "Claim":
        if bool(self.comparisons) == bool(self.elsewhere):
            raise ValueError("give comparisons (of cells), or elsewhere (what shows it), not both")
        return self


class Claims(Strict):
    """All claims, in the paper's order."""

    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of all cells that are compared."""
        names = [n for claim in self.claims for comparison in claim.comparisons for n in comparison.cells]
        return tuple(dict.fromkeys(names))


def read_claims(plan: "Plan") -> Claims:
    """Return the claims of a plan's config.

    Raises:
        InputError: the config names no file of claims, the file has a fault, or a comparison names a cell
            that does not exist or is not run, or the gain of a row without a baseline; all such are named.
    """
    path = plan.config.claims
    if path is None:
        raise InputError(f"{plan.source}: names no claims; add claims: config/claims.yaml, for example.")
    claims = read_part(Claims, path, plan.source)
    faults = [
        f"{path}: {fault}"
        for claim in claims.claims
        for comparison in claim.comparisons
        for fault in _faults(plan, comparison)
    ]
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))
    return claims


def claims_digest(plan: "Plan") -> str:
    """Digest of the claims and of the tables whose cells they compare."""
    claims = read_claims(plan)
    names = dict.fromkeys(locate(plan.tables, name).table for name in claims.cells)
    tables = [plan.table_digest(table) for table in names]
    return digest([claims.model_dump(mode="json"), tables])


def _faults(plan: "Plan", comparison: Comparison) -> list[str]:
    faults = []
    for name in comparison.cells:
        try:
            place = locate(plan.tables, name)
        except InputError as error:
            faults.append(str(error))
            continue
        rows = [place.row]
        if comparison.gain is not None:
            baseline = plan.tables[place.table].baseline(place.row)
            if baseline is None:
                faults.append(f"{name}: its row has no baseline, so that it has no gain.")
                continue
            rows.append(baseline)
        for row in rows:
            if place.column.name not in row.columns:
                faults.append(f"{name}: row {row.method} does not run {place.column.name}; add it there.")
    return faults
