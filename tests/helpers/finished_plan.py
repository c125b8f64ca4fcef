"""A plan of the tiny config whose results exist: weights of one number each, with the config's specs."""

import json
from itertools import product
from pathlib import Path

import torch
from synthetic_results import synthetic_plan

from m2pt import session
from m2pt.commands import main
from m2pt.formats.documents import read_yaml
from m2pt.formats.weights import save_weights
from m2pt.plan.jobs import pretrainings
from m2pt.plan.plan import Plan

TINY = Path("tests/tiny/config.yaml")
TABLES = ["tests/tiny/table.yaml"]


def finished_plan(tmp_path):
    """Return the plan after its results were written."""
    overrides = {"checkpoints": str(tmp_path / "checkpoints"), "seeds": [0, 1], "tables": TABLES}
    plan = synthetic_plan(tmp_path / "results", lambda experiment, seed, metric: 50.0 + seed, **overrides)
    for name, seed in pretrainings(plan):
        for file in plan.encoder_files(name):
            write(plan.encoder_directory(name, seed) / file, plan.encoders[name].stored, seed)
        for file, text in (
            ("run.json", json.dumps({"spec": plan.encoders[name].stored, "seed": seed, "provenance": {}})),
            ("metrics.jsonl", "{}\n"),
        ):
            (plan.encoder_directory(name, seed) / file).write_text(text)
        (plan.encoder_directory(name, seed) / "train.log").write_text("no final")
    for name, seed in product(plan.runs, plan.config.seeds):
        write(
            plan.run_directory(name, seed) / "merged.safetensors",
            plan.stored_spec(plan.run(name), seed),
            seed,
        )
    return plan


def write(path, spec, seed, value=1.0):
    save_weights(path, {"weight": torch.tensor([value])}, session.weights_metadata(spec, seed))


def again(plan, **overrides):
    """The same results under a changed config."""
    return Plan.load(TINY, {**plan.overrides, **overrides})


def call(plan, *words):
    """Run an m2pt command with this plan's config."""
    sets = [word for key, value in plan.overrides.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return main([*words, "--config", str(TINY), *sets])


def with_source(plan, *names):
    encoders = read_yaml(TINY)["encoders"]
    return again(plan, encoders=encoders | {name: encoders[name] | {"source": "dvc"} for name in names})
