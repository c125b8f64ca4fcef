"""The claims of a plan's config, and the runs that a table, a figure or the summary of the claims needs."""

from m2pt.config.cell_names import locate
from m2pt.config.claims import Claims, Comparison
from m2pt.config.experiment import digest
from m2pt.config.strict import read_part
from m2pt.errors import InputError
from m2pt.plan.plan import Plan, Run, cells
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


def claims_digest(plan: Plan) -> str:
    """Return the digest of the claims and of the tables with the cells that they compare."""
    claims = read_claims(plan)
    names = dict.fromkeys(locate(plan.tables, name).table for name in claims.cells)
    tables = [plan.table_digest(table) for table in names]
    return digest([claims.model_dump(mode="json"), tables])


def _faults(plan: Plan, comparison: Comparison) -> list[str]:
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
                faults.append(f"{name}: has no gain, since its row has no baseline.")
                continue
            rows.append(baseline)
        for row in rows:
            if place.column.name not in row.columns:
                faults.append(f"{name}: row {row.method} does not run {place.column.name}; add it there.")
    return faults


def runs_of_result(plan: Plan, result: str) -> dict[str, Run]:
    """Return the runs of a result's cells and of their baselines, by name.

    Raises:
        InputError: there is no such figure, or the claims are invalid.
    """
    if result in plan.tables:
        places = [(result, *cell) for cell in cells(plan.table(result))]
    else:
        names = read_claims(plan).cells if result == SUMMARY else plan.figure(result).plot.cell_names()
        places = [(*locate(plan.tables, name),) for name in names]
    return {run.name: run for place in places for run in plan.cell_and_baseline(*place)}
