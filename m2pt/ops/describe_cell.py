"""Describe how a cell of a table comes about: its numbers, runs, files and commands."""

from collections.abc import Iterator

from m2pt.config.cell_names import Place, locate
from m2pt.errors import InputError
from m2pt.plan.jobs import jobs
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.reporting.cells import check_metric, read_named, read_result
from m2pt.run_files import EVALUATION
from m2pt.tracking.cursor import mlflow_runs
from m2pt.tracking.mlflow_store import cell_filter


def describe_cell(plan: Plan, name: str) -> str:
    """Return the cell's numbers and, by seed, its runs and its baseline's: files, commands, MLflow's runs.

    Raises:
        InputError: there is no such cell.
    """
    place = locate(plan.tables, name)
    runs = plan.cell_runs(place.table, place.row, place.column)
    sections = [_cell(plan, place)]
    if runs:
        baseline = tuple(plan.cell_and_baseline(*place))[len(runs) :]
        for heading, group in (("", runs), ("baseline: ", baseline)):
            sections += [_run(plan, each, place.column.metric, heading) for each in group]
            if group:
                sections.append(_commands(plan, group, heading, known=runs if heading else ()))
    return "\n\n".join("\n".join(section) for section in sections)


def _cell(plan: Plan, place: Place) -> Iterator[str]:
    """Its name, its numbers, and what finds its runs in MLflow."""
    table, row, column = place
    yield place.name
    yield f"  what       {column.group} {column.title}: {column.metric} of {column.task} on {column.dataset}"
    if column.name in row.published:
        yield f"  published  {row.published[column.name]:g}"
    if place.name in plan.left_empty:
        yield f"  measured   left empty, since {plan.left_empty[place.name]}"
        return
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
        yield "  gain       not given: one seed cannot distinguish a difference from chance"
    elif cell.baseline is not None and (why := plan.left_empty.get(_baseline(plan, place))):
        yield f"  gain       not given: {cell.baseline.row.method} is left empty, since {why}"
    if cell.published_gain is not None:
        verdict = f": {cell.verdict}" if cell.verdict else ""
        yield f"             {cell.published_gain:+g} in the paper{verdict}"


def _baseline(plan: Plan, place: Place) -> str:
    """Return the name of the cell that a cell is compared with, "" if there is none."""
    row = plan.table(place.table).baseline(place.row)
    return "" if row is None else place._replace(row=row).name


def _run(plan: Plan, run: Run, metric: str, heading: str) -> Iterator[str]:
    """Yield a run's result and files, for each seed."""
    yield f"{heading}run {run.name}, spec {run.digest}"
    for seed in plan.config.seeds:
        directory = plan.run_directory(run.name, seed)
        if not (directory / EVALUATION).exists():
            yield f"  seed {seed}: not run yet; run it with: {plan.command(directory / EVALUATION)}"
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


def _commands(plan: Plan, runs: tuple[Run, ...], heading: str, known: tuple[Run, ...]) -> Iterator[str]:
    """Yield every command that makes the runs, once, in order, except those that make the `known` runs."""
    yield f"{heading}commands, in order ([x]: what it makes is there)"
    printed = {job.command for job in jobs(plan, known)}
    for job in (job for job in jobs(plan, runs) if job.command not in printed):
        yield f"  [{'x' if job.makes.exists() else ' '}] {job.command}"
        for link in mlflow_runs(plan.results, job.training.directory) if job.training else ():
            yield f"      MLflow: {link}"
