"""Whatever bytes a file holds: one bounded `InputError` that names it, or valid values, in bounded time.

M2PT_EXAMPLES=3000 tries so many of each kind of file.
"""

import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from damage import LOG, PROVENANCE, damaged_json, damaged_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_results import TINY, synthetic_plan

from m2pt.command_line import parse_overrides
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.formats.weights import save_weights
from m2pt.inputs import manifest_digest
from m2pt.ops.dataset_sizes import training_items
from m2pt.ops.step_costs import finished_costs, measured_costs
from m2pt.plan.claims import read_claims
from m2pt.plan.dvc import describe_differences
from m2pt.plan.jobs import trainings
from m2pt.plan.plan import Plan
from m2pt.reporting.cells import check_metric, read_result
from m2pt.reporting.figures.logs import read_log
from m2pt.reporting.figures.scales import _read as read_scales
from m2pt.results import Metrics, read
from m2pt.session import training_record
from m2pt.tracking.cursor import Cursor
from m2pt.tracking.liveness import Liveness
from m2pt.tracking.local_run import LocalRun, parse_points, read_cells_of_runs
from m2pt.training.settings import TrainingSettings

EXAMPLES = int(os.environ.get("M2PT_EXAMPLES", "0"))
LONGEST_MESSAGE = 20_000
SECONDS = 100  # of the processor, far more than any of them takes


def tried(examples):
    """So many examples, the same ones each time, or other ones if M2PT_EXAMPLES says how many."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def try_to_read(content, path, readers, *, names=()):
    """Write the file and read it with each reader; `names` are others that a message may give instead."""
    path.write_bytes(content)
    for reader in readers:
        began = time.process_time()
        try:
            reader()
        except InputError as error:
            message = str(error)
            assert len(message) < LONGEST_MESSAGE, message[:500]
            assert any(str(name) in message for name in (path, *names)), message
            message.encode()
        assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("value", [0, 0.5, 100, 100 + 3e-14, 100.0000076])
def test_a_score_in_percent(value, tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps({"metrics": {"map": value}}))
    assert read(Metrics, tmp_path / "evaluation.json").metrics == {"map": value}


@pytest.mark.parametrize("value", [-1e-9, 100.1, 1234.5, "5", True, None, [1], 1e300])
def test_what_is_no_score_in_percent(value, tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"metrics": {"map": value}}))
    with pytest.raises(InputError) as error:
        read(Metrics, path)
    assert str(error.value).startswith(f"{path}: metrics.map = ") and "\n" not in str(error.value)


# ---- what a person writes ----------------------------------------------------------------------------------


def everything(config, **overrides):
    plan = Plan.load(Path(config), overrides or None)
    if plan.config.claims is not None:
        read_claims(plan)
    assert all(run.digest for run in plan.runs.values())
    for training in trainings(plan, plan.runs.values()):
        assert isinstance(training.settings, TrainingSettings)


YAMLS = {
    "config": TINY,
    "table": Path("tests/tiny/table.yaml"),
    "large table": Path("config/tables/table1.yaml"),
    "curves": Path("tests/tiny/curves.yaml"),
    "claims": Path("tests/tiny/claims.yaml"),
    **{path.stem: path for path in sorted(Path("tests/tiny/recipes").glob("*.yaml"))},
}


def overriding(name, path):
    """The overrides by which the tiny config names this file in place of its own."""
    config = read_yaml(TINY)
    if name in ("table", "large table"):
        return {"tables": [path, "tests/tiny/targets.yaml"], "figures": [], "claims": None}
    if name == "curves":
        return {"figures": [path]}
    if name == "claims":
        return {"claims": path}
    text = json.dumps({key: config[key] for key in ("encoders", "finetune", "transfer")})
    return json.loads(text.replace(f"tests/tiny/recipes/{name}.yaml", path))


@pytest.mark.parametrize("name", YAMLS)
@tried(10)
@given(data=st.data())
def test_a_damaged_config_recipe_table_figure_or_claim(tmp_path_factory, name, data):
    content = data.draw(damaged_yaml(YAMLS[name].read_text()))
    path = tmp_path_factory.getbasetemp() / f"{name.replace(' ', '_')}_damaged.yaml"
    if name == "config":
        try_to_read(content, path, [lambda: everything(path)], names=("tests/tiny/",))
    else:
        overrides = overriding(name, str(path))
        try_to_read(content, path, [lambda: everything(TINY, **overrides)], names=[TINY])


@tried(150)
@given(
    pair=st.one_of(
        st.text(), st.tuples(st.sampled_from(["seeds", "threads", "results"]), st.text()).map("=".join)
    )
)
def test_a_damaged_override(pair):
    try:
        overrides = parse_overrides([pair])
        Plan.load(TINY, overrides)
    except InputError as error:
        assert len(str(error)) < LONGEST_MESSAGE


# ---- what our own commands write ---------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def slurm() -> Iterator[None]:
    """A Slurm that answers at once: that of the machine may be slow or down."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m2pt.tracking.liveness._squeue", lambda: "17:RUNNING\n")
        yield


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    plan = synthetic_plan(tmp_path_factory.mktemp("records") / "results", lambda *_: 50.0, seeds=[0])
    for name, run in plan.runs.items():
        folder = plan.run_directory(name, 0)
        spec = plan.stored_spec(run, 0)
        tags = {"target": "image", "seed": "0"}
        for file, content in {
            "run.json": {
                "name": name,
                "spec": spec,
                "seed": 0,
                "provenance": PROVENANCE,
                "inputs": {},
                "tags": tags,
            },
            "finished.json": {"identity": "a" * 64, "step": 5, "seconds": 3.5},
        }.items():
            (folder / file).write_text(json.dumps(content))
        (folder / "metrics.jsonl").write_text(LOG)
    return plan


@pytest.fixture(scope="module")
def run(plan):
    return next(run for run in plan.runs.values() if run.experiment.task == "classification")


def restoring(path, content, readers):
    """`try_to_read`, after which the file is what it was."""
    before = path.read_bytes() if path.exists() else None
    try:
        try_to_read(content, path, readers)
    finally:
        path.unlink() if before is None else path.write_bytes(before)


@tried(150)
@given(data=st.data())
def test_a_damaged_evaluation(plan, run, data):
    path = plan.run_directory(run.name, 0) / "evaluation.json"
    document = json.loads(path.read_text())
    document["scales"] = {
        "blocks.0.attn.qkv.pathways.audio.scale": 0.25,
        "blocks.1.mlp.fc1.pathways.a.scale": -0.5,
    }
    document["merged_difference"] = 1e-7
    restoring(
        path,
        data.draw(damaged_json(document)),
        [
            lambda: check_metric(plan, read_result(plan, run, 0), "top1"),
            lambda: list(read_scales(path, "")),
            lambda: LocalRun(plan.results, path.parent).evaluation(),
        ],
    )


@tried(150)
@given(data=st.data())
def test_a_damaged_description(plan, run, data):
    path = plan.run_directory(run.name, 0) / "run.json"
    folder = LocalRun(plan.results, path.parent)
    training = next(each for each in trainings(plan, [run]) if each.run is run)
    unended = {"run.json": [10**18, 1]}
    restoring(
        path,
        data.draw(damaged_json(json.loads(path.read_text()))),
        [
            folder.identity,
            folder.started,
            lambda: folder.status(unended, Liveness()),
            lambda: training_record(path.parent),
            lambda: training.is_done,
            lambda: finished_costs(plan.results),
        ],
    )


@tried(150)
@given(data=st.data(), name=st.sampled_from(["finished.json", "interrupted.json", "failed.json"]))
def test_a_damaged_marker(plan, run, data, name):
    path = plan.run_directory(run.name, 0) / name
    document = {"identity": "a" * 64, "step": 5, "seconds": 3.5, "reason": "SIGTERM", "exit_code": 75}
    signature = {"run.json": [1, 1], name: [10**18, 1]}
    folder = LocalRun(plan.results, path.parent)
    readers = [lambda: folder.status(signature, Liveness())]
    if name == "finished.json":
        readers += [lambda: training_record(path.parent), lambda: finished_costs(plan.results)]
    restoring(path, data.draw(damaged_json(document)), readers)


@tried(150)
@given(data=st.data())
def test_a_damaged_log(plan, run, data):
    path = plan.run_directory(run.name, 0) / "metrics.jsonl"
    folder = LocalRun(plan.results, path.parent)
    lines = LOG.splitlines(keepends=True)
    line = data.draw(damaged_json({"step": 3, "epoch": 1, "loss": 0.5, "lr": 0.1}))
    content = "".join(lines[:2]).encode() + line + b"\n" + "".join(lines[2:]).encode()
    restoring(
        path,
        content,
        [lambda: read_log(path, ["loss"]), lambda: [parse_points(line, path) for line in folder.lines()]],
    )


@tried(150)
@given(data=st.data())
def test_a_damaged_manifest(plan, data):
    path = plan.manifest("imagenet")
    path.parent.mkdir(exist_ok=True)
    document = {"layout": "imagenet", "files": 90, "bytes": 9000, "items": {"train": 60, "val": 30}}
    document |= {"classes": ["0", "1"], "listing_sha256": "a" * 64, "content_sha256": "b" * 64}
    spec = plan.encoders["image"]
    restoring(
        path,
        data.draw(damaged_json(document)),
        [lambda: manifest_digest(plan, "imagenet"), lambda: training_items(plan, spec, {})],
    )


@tried(150)
@given(data=st.data())
def test_damaged_cells_costs_and_cursors(plan, data):
    cells, costs, cursor = (plan.results / name for name in ("cells.json", "step_costs.json", "cursor.json"))
    names = {f"runs/{name}/seed0": ["table:pretrained/MAE:tune_acc"] for name in plan.runs}
    restoring(cells, data.draw(damaged_json(names)), [lambda: read_cells_of_runs(plan.results)])
    entry = {"seconds": 0.5, "training": "x", "torch": "2.6", "measured": "2026-01-01T00:00:00"}
    entry["samples"] = 2
    restoring(
        costs, data.draw(damaged_json({"a" * 16: {"cpu": entry}})), [lambda: measured_costs(plan.results)]
    )
    state = {"run_id": "f" * 32, "identity": "a" * 16, "first_line": "{}\n", "lines": 5, "sending": 0}
    state |= {"sending_time": 0, "status": "RUNNING", "cells": "|a|", "seen": {"run.json": [1, 2]}}
    restoring(cursor, data.draw(damaged_json(state)), [lambda: Cursor.load(cursor)])


@tried(150)
@given(data=st.data())
def test_damaged_metadata_of_weights(plan, run, data):
    """The file is sound for safetensors, and in about half of the tries its checksum is right."""
    path = plan.run_directory(run.name, 0) / "merged.safetensors"
    spec = plan.stored_spec(run, 0)
    inner = data.draw(damaged_json(spec)).decode("utf-8", "replace")
    if data.draw(st.booleans()):
        stored = data.draw(st.sampled_from([{"spec": inner, "seed": "0"}, {"spec": inner}, {"seed": inner}]))
        save_weights(path, {"w": torch.zeros(1)}, stored)
    else:
        entry = data.draw(damaged_json({"crc32": "0" * 8, "metadata": {"spec": inner, "seed": "0"}}))
        tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
        header = {"__metadata__": {"m2pt": entry.decode("utf-8", "replace")}, "w": tensor}
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    restoring(path, path.read_bytes(), [lambda: describe_differences(path, spec, 0)])
