"""Plans whose results are all there, with chosen values: what tables and claims are tested on."""

import json
from pathlib import Path

from m2pt import catalog
from m2pt.plan.plan import Plan

TINY = Path("tests/tiny/config.yaml")
PROVENANCE = {"git_commit": "0123456789abcdef-dirty", "device": "cpu"}


def synthetic_plan(results, value, *, config=TINY, **overrides):
    """A config's plan with these overrides; each result is `value(experiment, seed, metric)`.

    Other tables than the config's have no figures and claims unless they are given too.
    """
    if "tables" in overrides:
        overrides = {"figures": [], "claims": None, **overrides}
    plan = Plan.load(config, {"results": str(results), "seeds": [0, 1, 2], **overrides})
    for name, run in plan.runs.items():
        for seed in plan.config.seeds:
            names = catalog.task(run.experiment.task).metrics
            metrics = {metric: value(run.experiment, seed, metric) for metric in names}
            path = plan.run_directory(name, seed) / "evaluation.json"
            path.parent.mkdir(parents=True)
            result = {
                "metrics": metrics,
                "seed": seed,
                "spec": plan.stored_spec(run, seed),
                "training": {"provenance": PROVENANCE, "seconds": 36.0},
                "provenance": PROVENANCE,
            }
            path.write_text(json.dumps(result))
    return plan
