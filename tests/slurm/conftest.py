"""Without a Slurm the tests here say that they were not run; tests/slurm/slurm-up starts one."""

import shutil
import subprocess
from pathlib import Path

import pytest
from cluster_lab import Workflow


def slurm_runs() -> bool:
    if not shutil.which("sinfo"):
        return False
    return subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=30).returncode == 0


def pytest_collection_modifyitems(config, items):
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.slurm)
    if here and not slurm_runs():
        if config.option.markexpr == "slurm":
            raise pytest.UsageError("no Slurm answers sinfo here; tests/slurm/slurm-up starts one")
        for item in here:
            item.add_marker(
                pytest.mark.skip(reason="NOT RUN: there is no Slurm here; tests/slurm/slurm-up starts one")
            )


@pytest.fixture
def workflow(tmp_path):
    made = Workflow(tmp_path)
    yield made
    made.end()
