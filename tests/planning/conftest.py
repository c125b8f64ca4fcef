"""The trainings of the tiny config, to be left as they are, and its plan as JSON."""

import json

import pytest
from tiny_trainings import TINY

from m2pt.commands import main
from m2pt.planning.jobs import trainings
from m2pt.schema.plan import Plan


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
