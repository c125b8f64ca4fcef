"""One run of two processes under DDP, for the tests of all methods."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """Return the states of both processes by method."""
    folder = tmp_path_factory.mktemp("ddp")
    paths = os.pathsep.join([str(HELPERS), str(HELPERS.parents[1])])
    subprocess.run(
        [sys.executable, HELPERS / "balancing_processes.py", folder],
        check=True,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
