"""`m2pt summarize`: the paper's claims with our verdicts. Needs neither torch nor timm."""

import argparse

from m2pt import job_log
from m2pt.atomic import write_text
from m2pt.command_line import add_plan_arguments, begin_report, expect, load_plan
from m2pt.run_files import PROVENANCE, SUMMARY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/summary.md, and summary.made.txt, its provenance in the report."""
    from m2pt.plan.claims import claims_digest, missing_cells
    from m2pt.reporting.claims import summarize, to_markdown
    from m2pt.reporting.notes import provenance_note

    plan = load_plan(arguments)
    expect(arguments, claims_digest(plan))
    paths = plan.results / f"{SUMMARY}.md", plan.results / f"{SUMMARY}.{PROVENANCE}"
    begin_report(plan, "summarize", paths)
    summary = summarize(plan)
    provenance = provenance_note(plan, summary.cells)
    missing = missing_cells(plan, [SUMMARY])
    texts = to_markdown(summary, provenance, missing), f"{' '.join((provenance, *missing))}\n"
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text)
    print(f"\n{texts[0]}")
    job_log.end(*paths)
