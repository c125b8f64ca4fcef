"""`m2pt plot FIGURE`: PDF, SVG, PNG and CSV from the result files. Needs neither torch nor timm."""

import argparse

from m2pt import job_log
from m2pt.command_line import add_plan_arguments, begin_report, expect, load_plan
from m2pt.run_files import FIGURE_FORMATS, PROVENANCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("figure", help="name of a figure of the config, for example figure3")
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/FIGURE.pdf, .svg, .png, .csv, and FIGURE.made.txt, its provenance in the report."""
    from m2pt.plan.claims import missing_cells
    from m2pt.reporting.figures.cells import FigureCells
    from m2pt.reporting.figures.render import render, write_figure
    from m2pt.reporting.figures.style import style

    plan = load_plan(arguments)
    figure = plan.figure(arguments.figure)
    expect(arguments, plan.figure_digest(arguments.figure))
    stem = plan.results / arguments.figure
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in (*FIGURE_FORMATS, PROVENANCE)]
    begin_report(plan, f"plot {arguments.figure}", paths)
    cells = FigureCells(plan, figure)
    with style():
        picture, records = render(cells)
        provenance = " ".join((cells.provenance_note(), *missing_cells(plan, [arguments.figure])))
        write_figure(stem, picture, records, figure, provenance)
    job_log.end(*paths)
