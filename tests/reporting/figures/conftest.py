"""A config with a figure of each kind, and its plan with all results there."""

import json

import pytest
import yaml
from figure_results import FIGURES, MAP, TABLE, TOP1, log, scales
from synthetic_results import TINY

from m2pt.plan.plan import Plan


@pytest.fixture
def overrides(tmp_path):
    """Overrides of the tiny config: one table, a figure of each kind, three seeds."""
    (tmp_path / "pairs.yaml").write_text(yaml.safe_dump(TABLE))
    for name, plot in FIGURES.items():
        figure = {"title": name.title(), "caption": "Caption.", "plot": plot}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(figure, sort_keys=False))
    return {
        "results": str(tmp_path / "results"),
        "seeds": [0, 1, 2],
        "tables": [str(tmp_path / "pairs.yaml")],
        "figures": [str(tmp_path / f"{name}.yaml") for name in FIGURES],
    }


@pytest.fixture
def plan(overrides):
    """A plan whose results are all there."""
    plan = Plan.load(TINY, overrides)
    for name, run in plan.runs.items():
        auxiliary = next(iter(run.experiment.auxiliaries), None)
        for seed in plan.config.seeds:
            folder = plan.run_directory(name, seed)
            folder.mkdir(parents=True)
            values = {"top1": TOP1, "map": MAP}
            metrics = {metric: by[auxiliary][seed] for metric, by in values.items() if auxiliary in by}
            provenance = {"git_commit": "0" * 40, "device": "cpu"}
            result = {
                "metrics": {"miou": 40.0, **metrics},
                "scales": scales(auxiliary, seed) if auxiliary else {},
                "seed": seed,
                "spec": plan.stored_spec(run, seed),
                "provenance": provenance,
                "training": {"provenance": provenance, "seconds": 3600.0},
            }
            (folder / "evaluation.json").write_text(json.dumps(result))
            (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in log(seed)))
    return plan
