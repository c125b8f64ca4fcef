"""`m2pt summarize`: the paper's claims with our verdicts. Needs neither torch nor timm."""

import argparse

from m2pt.atomic import write_text
from m2pt.commands.planned import add_plan_arguments, expect, load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/summary.md, and in summary.made.txt how it was made, for the report."""
    from m2pt.reporting.claims import summarize, to_markdown
    from m2pt.reporting.notes import made
    from m2pt.schema.claims import claims_digest

    plan = load_plan(arguments)
    expect(arguments, claims_digest(plan))
    summary = summarize(plan)
    how = made(plan, summary.cells)
    text = to_markdown(summary, how)
    write_text(plan.results / "summary.md", text)
    write_text(plan.results / "summary.made.txt", f"{how}\n")
    print(text)
