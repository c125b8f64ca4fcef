"""What the config last used with a results folder asks for, left there for whoever reads only that folder.

A run's cells are no part of its spec: a table edited or added changes them without any training. So they do
not stand in run.json, which only a training writes, but in one file that every training and `m2pt tabulate`
keep up to date; the tracker makes the tag `cells` of it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m2pt.atomic import write_text
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes
from m2pt.results import CELLS, Cells, read

if TYPE_CHECKING:
    from m2pt.schema.plan import Plan

CONFIG = "config.yaml"

TAG = "cells"
"""The tag by which MLflow's runs are filtered to a cell."""


def record(plan: "Plan") -> None:
    """Write results/cells.json, the table cells of every run and seed, and results/config.yaml, the config.

    The config is resolved: defaults filled in, overrides applied; it can be given to --configfile. Files that
    say so already are left alone, since many jobs of a workflow come by here.
    """
    import yaml

    header = f"# {plan.source} with defaults filled in and overrides applied. Written by m2pt; do not edit.\n"
    config = yaml.safe_dump(plan.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    cells = json.dumps(_cells(plan), indent=2, ensure_ascii=False)
    for name, text in ((CELLS, f"{cells}\n"), (CONFIG, header + config)):
        path = plan.results / name
        if not _says(path, text):
            write_text(path, text)


def recorded_cells(results: Path) -> dict[str, list[str]]:
    """Return the full names of each run's cells, by its folder below `results`; {} before `record`.

    Raises:
        InputError: the file is damaged.
    """
    path = results / CELLS
    return {run: list(names) for run, names in read(Cells, path).root.items()} if path.exists() else {}


def cells_tag(cells: Sequence[str]) -> str:
    """Return the value of the tag: each name between bars, so that no name is found within another."""
    return f"|{'|'.join(cells)}|" if cells else ""


def cell_filter(cell: str) -> str:
    """Return what finds a cell's runs, for the search box of MLflow's UI and for `search_runs`."""
    quote = '"' if "'" in cell else "'"
    return f"tags.{TAG} LIKE {quote}%|{cell}|%{quote}"


def _says(path: Path, text: str) -> bool:
    try:
        return read_bytes(path) == text.encode()
    except InputError:
        return False


def _cells(plan: "Plan") -> dict[str, list[str]]:
    from m2pt.schema.cell_names import Place
    from m2pt.schema.plan import cells

    found: dict[str, list[str]] = {}
    for table_name, table in plan.tables.items():
        for row, column in cells(table):
            for run in plan.cell_runs(table_name, row, column):
                for seed in plan.config.seeds:
                    directory = plan.run_directory(run.name, seed).relative_to(plan.results).as_posix()
                    found.setdefault(directory, []).append(Place(table_name, row, column).name)
    return found
