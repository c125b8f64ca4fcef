"""Tests that need a Slurm: `slurm-up` in this folder starts one on this machine."""

from pathlib import Path

from slurm_workflow import mark_slurm_tests


def pytest_collection_modifyitems(config, items):
    mark_slurm_tests(config, items, Path(__file__).parent)
