"""`m2pt tabulate TABLE`: CSV, Markdown and LaTeX from the result files. Needs neither torch nor timm."""

import argparse

from m2pt import job_log
from m2pt.atomic import write_text
from m2pt.command_line import add_plan_arguments, begin_report, expect, load_plan
from m2pt.run_files import PROVENANCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("table", help="name of a table of the config, for example table1")
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/TABLE.csv, .md and .tex, and TABLE.made.txt, its provenance in the report.

    An edited table may use runs that exist already, so the snapshot of the plan is updated too.
    """
    from m2pt.plan.claims import missing_cells
    from m2pt.plan.snapshot import write_snapshot
    from m2pt.reporting.cells import read_cells
    from m2pt.reporting.notes import provenance_note, table_notes
    from m2pt.reporting.tables import to_csv, to_latex, to_markdown

    plan, name = load_plan(arguments), arguments.table
    table = plan.table(name)
    expect(arguments, plan.table_digest(name))
    paths = {kind: plan.results / f"{name}.{kind}" for kind in ("csv", "md", "tex", PROVENANCE)}
    begin_report(plan, f"tabulate {name}", paths.values())
    cells = read_cells(plan, name)
    provenance = provenance_note(plan, cells)
    missing = missing_cells(plan, [name])
    notes = table_notes(plan, table, cells, provenance, missing)
    texts = {
        "csv": to_csv(table, cells),
        "md": to_markdown(table, cells, notes),
        "tex": to_latex(table, cells, notes),
        PROVENANCE: f"{' '.join((provenance, *missing))}\n",
    }
    for kind, path in paths.items():
        write_text(path, texts[kind])
    write_snapshot(plan)
    print(f"\n{texts['md']}")
    job_log.end(*paths.values())
