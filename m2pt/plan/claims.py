"""The claims of a plan's config; the runs that a table, a figure or the summary needs, and what it lacks."""

from collections.abc import Iterable

from m2pt.config.cell_names import Place, locate
from m2pt.config.claims import Claims, check_comparisons
from m2pt.config.experiment import digest
from m2pt.config.strict import read_part
from m2pt.errors import InputError, listed
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run, cells
from m2pt.run_files import SUMMARY


def read_claims(plan: Plan) -> Claims:
    """Read the claims of a plan's config.

    Raises:
        InputError: the config has no claims file, the file is invalid, or a comparison names a cell that does
            not exist, is not run, or has no baseline; all problems are listed.
    """
    path = plan.config.claims
    if path is None:
        raise InputError(f"{plan.source}: no claims file; set claims: config/claims.yaml.")
    return check_comparisons(read_part(Claims, path, plan.source), plan.tables, path)


def claims_digest(plan: Plan) -> str:
    """Return the digest of the claims and of the tables with the cells that they compare."""
    claims = read_claims(plan)
    names = dict.fromkeys(locate(plan.tables, name).table for name in claims.cells)
    tables = [plan.table_digest(table) for table in names]
    return digest([claims.model_dump(mode="json"), tables])


def runs_of_result(plan: Plan, result: str) -> dict[str, Run]:
    """Return the runs of a result's cells and of their baselines, by name.

    Raises:
        InputError: there is no such figure, or the claims are invalid.
    """
    if result in plan.tables:
        places = [Place(result, *cell) for cell in cells(plan.table(result))]
    else:
        names = read_claims(plan).cells if result == SUMMARY else plan.figure(result).plot.cell_names()
        places = [locate(plan.tables, name) for name in names]
    return {run.name: run for place in places for run in plan.cell_and_baseline(*place)}


def missing_cells(plan: Plan, results: Iterable[str] | None = None) -> list[str]:
    """Return which cells are left empty or not drawn, and why: a sentence for each reason.

    Args:
        plan: the plan.
        results: tables, figures, the summary; default: all of the plan.

    Raises:
        InputError: the claims are invalid.
    """
    found: dict[tuple[str, str], dict[str, None]] = {}
    for result in [*plan.tables, *plan.not_drawn] if results is None else results:
        if result == SUMMARY:
            what, missing = "left empty", _cells_of_claims(plan)
        elif result in plan.tables:
            what, missing = "left empty", plan.empty_cells(result)
        else:
            what, missing = f"not drawn in {result}", plan.not_drawn.get(result, {})
        for cell, why in missing.items():
            found.setdefault((what, why), {})[cell] = None
    return [f"{listed(cells)}: {what}, since {why}." for (what, why), cells in found.items()]


def _cells_of_claims(plan: Plan) -> dict[str, str]:
    """Return the cells that the claims compare, or that are baselines of these, which are left empty."""
    found = {}
    for place in (locate(plan.tables, name) for name in read_claims(plan).cells):
        for row in filter(None, (place.row, plan.table(place.table).baseline(place.row))):
            name = place._replace(row=row).name
            if name in plan.left_empty:
                found[name] = plan.left_empty[name]
    return found
