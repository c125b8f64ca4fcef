"""A snapshot of the plan in its results folder: the table cells of every run, and the resolved config.

The cells of a run are not part of its spec: editing or adding a table changes them without any training. So
they are not in run.json, which only a training writes, but in a file that every training and `m2pt tabulate`
keep up to date. The tracker turns it into a tag.
"""

import json
from pathlib import Path

import yaml

from m2pt.atomic import write_text
from m2pt.config.cell_names import Place
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes
from m2pt.plan.plan import Plan
from m2pt.plan.runs import cells
from m2pt.run_files import CELLS, CONFIG


def write_snapshot(plan: Plan) -> None:
    """Write results/cells.json, the table cells of every run and seed, and results/config.yaml, the config.

    The config has defaults filled in and overrides applied, and can be given to --configfile. Files that are
    up to date are not rewritten, since every job of a workflow calls this.
    """
    header = f"# {plan.source} with defaults filled in and overrides applied. Written by m2pt; do not edit.\n"
    config = yaml.safe_dump(plan.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    cells_of_runs = json.dumps(_cells_of_runs(plan), indent=2, ensure_ascii=False)
    for name, text in ((CELLS, f"{cells_of_runs}\n"), (CONFIG, header + config)):
        path = plan.results / name
        if not _has_content(path, text):
            write_text(path, text)


def _has_content(path: Path, text: str) -> bool:
    try:
        return read_bytes(path) == text.encode()
    except InputError:
        return False


def _cells_of_runs(plan: Plan) -> dict[str, list[str]]:
    """Return the full names of each run's cells, by its folder below the results folder."""
    found: dict[str, list[str]] = {}
    for table_name, table in plan.tables.items():
        for row, column in cells(table):
            for run in plan.cell_runs(table_name, row, column):
                for seed in plan.config.seeds:
                    directory = plan.run_directory(run.name, seed).relative_to(plan.results).as_posix()
                    found.setdefault(directory, []).append(Place(table_name, row, column).name)
    return found
