"""The runs behind a result: what a table, a figure or the summary of the claims is made from."""

from m2pt.schema.cell_names import locate
from m2pt.schema.claims import read_claims
from m2pt.schema.plan import SUMMARY, Plan, Run, cells


def runs_behind(plan: Plan, result: str) -> list[Run]:
    """The runs behind the cells of a table, a figure or the summary and behind their baselines, each once.

    Raises:
        InputError: there is no such figure, or the claims have a fault.
    """
    if result in plan.tables:
        places = [(result, *cell) for cell in cells(plan.table(result))]
    else:
        names = read_claims(plan).cells if result == SUMMARY else plan.figure(result).plot.cells()
        places = [(*locate(plan.tables, name),) for name in names]
    found = (run for place in places for run in plan.cell_and_baseline(*place))
    return list({run.name: run for run in found}.values())
