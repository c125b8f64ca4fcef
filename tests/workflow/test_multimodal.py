"""`snakemake agm`: the results of joint trainings and what they need, and nothing else."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from m2pt.plan.plan import Plan

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def dry_run(tmp_path):
    """Return a function of a config that gives what a dry run of `agm` says, and its jobs by rule."""
    shutil.copy(REPOSITORY / "Snakefile", tmp_path)
    for name in ("workflow", "config", "tests/tiny"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)

    def run(config):
        words = ["snakemake", "agm", "--dry-run", "--cores", "1", "--configfile", config]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        said = done.stdout + done.stderr
        return said, {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", said, re.MULTILINE)}

    return run


def test_it_makes_the_tables_and_figures_of_the_methods_and_no_others(dry_run):
    said, jobs = dry_run("config/config.yaml")
    runs = Plan.load(REPOSITORY / "config/config.yaml").runs.values()
    assert jobs.pop("total") == sum(jobs.values()), said
    assert jobs == {
        "agm": 1,
        "build_miniature": 3,
        "multimodal": sum(run.command == "multimodal" for run in runs),
        "tabulate": 2,
        "plot": 5,
    }, said


def test_a_config_without_joint_trainings_is_told_so(dry_run):
    said, jobs = dry_run("tests/tiny/config.yaml")
    assert "tests/tiny/config.yaml: no table has a run with balancing." in said
    assert not jobs and "Traceback (most recent" not in said
