"""The trainings of the tiny config, how one is found, and the sizes of its image classifiers."""

import json
from pathlib import Path

import pytest
import torch

from m2pt.commands import main
from m2pt.plan.jobs import trainings
from m2pt.plan.plan import Plan

TINY = Path("tests/tiny/config.yaml")
META = torch.device("meta")
BATCH, TOKENS, DIM, DEPTH, HIDDEN, CLASSES = 16, 17, 16, 4, 32, 10
"""Of the tiny config's image classifiers: 16 patches of 8 x 8 pixels and a class token."""
LINEAR = {"qkv": 3 * DIM * DIM, "proj": DIM * DIM, "fc1": DIM * HIDDEN, "fc2": HIDDEN * DIM}


def find(tiny, beginning):
    return next(training for id, training in tiny.items() if id.startswith(beginning))


@pytest.fixture(scope="session")
def tiny():
    plan = Plan.load(TINY)
    return {training.id: training for training in trainings(plan, plan.runs.values())}


@pytest.fixture
def document(tmp_path, capsys):
    """The plan of the tiny config as JSON, with a results folder of its own."""

    def run(*arguments, config=TINY):
        results = tmp_path / "results"
        words = ["plan", *arguments, "--config", str(config), "--set", f"results={results}", "--json"]
        assert main(words) == 0
        return json.loads(capsys.readouterr().out)

    return run
