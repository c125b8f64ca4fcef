"""`m2pt show CELL`: what is behind a cell of a table. Needs neither torch nor timm, nor any result."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from m2pt.commands.planned import add_plan_arguments, load_plan
from m2pt.commands.printing import print_all
from m2pt.errors import InputError

if TYPE_CHECKING:
    from m2pt.reporting.lineage import Step
    from m2pt.schema.cell_names import Place
    from m2pt.schema.plan import Plan, Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "cell",
        help="TABLE:METHOD:COLUMN, or TABLE:SETTING/METHOD:COLUMN where a method stands in several settings, "
        "for example table1:scratch/M2PT-Point:imagenet_tune_acc",
    )
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the cell's numbers and, by seed, its runs and its baseline's: files, commands, MLflow's runs.

    Raises:
        InputError: there is no such cell.
    """
    from m2pt.schema.cell_names import locate

    plan = load_plan(arguments)
    place = locate(plan.tables, arguments.cell)
    runs = plan.cell_runs(place.table, place.row, place.column)
    sections = [_cell(plan, place)]
    if runs:
        baseline = tuple(plan.cell_and_baseline(*place))[len(runs) :]
        for heading, group in (("", runs), ("baseline: ", baseline)):
            sections += [_run(plan, each, place.column.metric, heading) for each in group]
            if group:
                sections.append(_commands(plan, group, heading, known=runs if heading else ()))
    print_all("\n\n".join("\n".join(section) for section in sections))


def _cell(plan: "Plan", place: "Place") -> Iterator[str]:
    """Its name, its numbers, and what finds its runs in MLflow."""
    from m2pt.reporting.asked import cell_filter
    from m2pt.reporting.cells import read_named

    table, row, column = place
    yield place.name
    yield f"  what       {column.group} {column.title}: {column.metric} of {column.task} on {column.dataset}"
    if column.name in row.published:
        yield f"  published  {row.published[column.name]:g}"
    if not plan.cell_runs(table, row, column):
        yield "  measured   not run" + (", the row is quoted" if row.run is None else "")
        return
    yield f"  MLflow     {cell_filter(place.name)}"
    try:
        cell = read_named(plan, [place.name])[place.name]
    except InputError:
        yield "  measured   incomplete, with its baseline: see the runs below"
        return
    spread = "" if cell.deviation is None else f" ± {cell.deviation:.2f}"
    seeds = f"seed{'s' if len(cell.values) > 1 else ''} {', '.join(map(str, cell.values))}"
    yield f"  measured   {cell.mean:.2f}{spread}, {seeds}"
    if cell.gain is not None and cell.baseline is not None:
        bounds = "" if cell.interval is None else " (95 %: {:+.2f} to {:+.2f})".format(*cell.interval)
        yield f"  gain       {cell.gain:+.2f}{bounds} over {cell.baseline.row.method}"
    elif cell.one_seed_difference is not None and cell.baseline is not None:
        yield f"  baseline   {cell.baseline.mean:.2f}, {cell.baseline.row.method}"
        yield "  gain       not given: one seed cannot tell a difference from chance"
    if cell.published_gain is not None:
        verdict = f": {cell.verdict}" if cell.verdict else ""
        yield f"             {cell.published_gain:+g} in the paper{verdict}"


def _run(plan: "Plan", run: "Run", metric: str, heading: str) -> Iterator[str]:
    """A run's result and files, for each seed."""
    from m2pt.reporting.cells import check_metric, read_result

    yield f"{heading}run {run.name}, spec {run.digest}"
    for seed in plan.config.seeds:
        directory = plan.run_directory(run.name, seed)
        if not (directory / "evaluation.json").exists():
            yield f"  seed {seed}: not made yet; make it with: {plan.command(directory / 'evaluation.json')}"
        else:
            try:
                result = read_result(plan, run, seed)
                check_metric(plan, result, metric)
                yield f"  seed {seed}: {metric} {result.metrics[metric]:.2f}"
            except InputError as error:
                yield f"  seed {seed}: {error}"
        if directory.is_dir():
            names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
            yield f"    {directory}: {', '.join(names)}"


def _commands(plan: "Plan", runs: tuple["Run", ...], heading: str, known: tuple["Run", ...]) -> Iterator[str]:
    """Every command behind the runs, once, in order, except those behind the `known` runs."""
    from m2pt.reporting.lineage import mlflow_runs, steps

    def every(runs: tuple["Run", ...]) -> dict["Step", None]:
        return dict.fromkeys(
            step for run in runs for seed in plan.config.seeds for step in steps(plan, run, seed)
        )

    yield f"{heading}commands, in order ([x]: what it makes is there)"
    told = every(known)
    for step in (step for step in every(runs) if step not in told):
        yield f"  [{'x' if step.makes.exists() else ' '}] {step.command}"
        for link in mlflow_runs(plan.results, step.training) if step.training else ():
            yield f"      MLflow: {link}"
