"""`m2pt plot FIGURE`: PDF, SVG, PNG and CSV from the result files. Needs neither torch nor timm."""

import argparse

from m2pt.commands.planned import add_plan_arguments, expect, load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("figure", help="name of a figure of the config, for example figure3")
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/FIGURE.pdf, .svg, .png, .csv, and in FIGURE.made.txt how it was made, for the report."""
    from m2pt.reporting.figures.files import write_figure
    from m2pt.reporting.figures.rendering import render
    from m2pt.reporting.figures.shown import Shown
    from m2pt.reporting.figures.style import style

    plan = load_plan(arguments)
    figure = plan.figure(arguments.figure)
    expect(arguments, plan.figure_digest(arguments.figure))

    shown, stem = Shown(plan, figure), plan.results / arguments.figure
    with style():
        picture, records = render(shown)
        write_figure(stem, picture, records, title=figure.title, caption=figure.caption, made=shown.made())
    print(f"{stem}.pdf, .svg, .png and .csv")
