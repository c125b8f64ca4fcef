"""The paper's config: every table and figure resolves to jobs, before any data is there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from m2pt import catalog
from m2pt.plan.plan import Plan

REPOSITORY = Path(__file__).parents[2]


def test_all_tables_of_the_paper_resolve(tmp_path: Path) -> None:
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for name in ("workflow", "config"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    words = [sys.executable, "-m", "snakemake", "--dry-run", "all_tables", "--quiet", "rules"]
    words += ["--configfile", "config/paper.yaml"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    jobs = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
    plan = Plan.load(Path("config/paper.yaml"))
    for kind in catalog.KINDS:
        expected = sum(run.command == kind for run in plan.runs.values()) * len(plan.config.seeds)
        assert jobs[kind] == expected > 0
    assert jobs["tabulate"] == len(plan.tables) and jobs["plot"] == len(plan.figures)
