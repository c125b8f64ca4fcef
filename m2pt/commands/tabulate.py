"""`m2pt tabulate TABLE`: CSV, Markdown and LaTeX from the result files. Needs neither torch nor timm."""

import argparse

from m2pt.atomic import write_text
from m2pt.commands.planned import add_plan_arguments, expect, load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("table", help="name of a table of the config, for example table1")
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/TABLE.csv, .md and .tex, and in TABLE.made.txt how it was made, for the report.

    An edited table may use runs that are there already: what `m2pt.reporting.asked` keeps is updated too.
    """
    from m2pt.reporting import asked
    from m2pt.reporting.cells import read_cells
    from m2pt.reporting.notes import below, made
    from m2pt.reporting.tables import to_csv, to_latex, to_markdown

    plan = load_plan(arguments)
    table = plan.table(arguments.table)
    expect(arguments, plan.table_digest(arguments.table))
    cells = read_cells(plan, arguments.table)
    how = made(plan, cells)
    notes = below(plan, table, cells, how)
    texts = {
        "csv": to_csv(table, cells),
        "md": to_markdown(table, cells, notes),
        "tex": to_latex(table, cells, notes),
        "made.txt": f"{how}\n",
    }
    for suffix, text in texts.items():
        write_text(plan.results / f"{arguments.table}.{suffix}", text)
    asked.record(plan)
    print(texts["md"])
