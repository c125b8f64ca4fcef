"""Tests that need a Slurm: `slurm-up` of this repository's tests/slurm starts one on this machine."""

from pathlib import Path

import pytest
from slurm_workflow import Workflow, mark_slurm_tests


def pytest_collection_modifyitems(config, items):
    mark_slurm_tests(config, items, Path(__file__).parent)


@pytest.fixture
def workflow(tmp_path):
    made = Workflow(tmp_path)
    yield made
    made.end()
