"""Commands on a results folder in which a file is damaged: one message, exit code 2, never a traceback."""

import json
import os

import pytest
from damage import LOG, PROVENANCE
from synthetic_results import synthetic_plan

from m2pt.commands import main
from m2pt.tracking.follow import mirror_once

DEEP = "[" * 100_000

DAMAGES = {
    "empty": "",
    "cut": '{"metrics": {"top1": 5',
    "a list": "[]",
    "null": "null",
    "a number": "1",
    "a string": '"x"',
    "no UTF-8": b"\xff\xfe{}",
    "deep": DEEP,
    "a key twice": '{"seed": 0, "seed": 0}',
    "digits": '{"seed": ' + "1" * 5000 + "}",
    "NaN": '{"seed": NaN}',
    "a null byte": '{"name": "\\u0000"}',
    "half a surrogate pair": '{"name": ["\\ud800"]}',
    "empty object": "{}",
    "wrong types": '{"metrics": [], "seed": "0", "spec": 1, "training": null, "provenance": "x"}',
}


def put(path, damage):
    """Put something else where the file was."""
    if path.exists() or path.is_symlink():
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage == "a pipe":
        os.mkfifo(path)
    elif damage == "a device":
        path.symlink_to("/dev/zero")
    elif damage == "a loop":
        path.symlink_to(path)
    else:
        content = DAMAGES[damage]
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


KINDS = (*DAMAGES, "a folder", "a pipe", "a device")
SOME = ("empty", "no UTF-8", "NaN", "wrong types", "a pipe")


def fill(plan, seed=0):
    """Add to each result what its training has left; everything was written long ago."""
    for name, run in plan.runs.items():
        folder = plan.run_directory(name, seed)
        described = {
            "name": name,
            "spec": plan.stored_spec(run, seed),
            "seed": seed,
            "provenance": PROVENANCE,
        }
        (folder / "run.json").write_text(json.dumps({**described, "inputs": {}, "tags": {"seed": "0"}}))
        (folder / "finished.json").write_text(json.dumps({"identity": "a" * 64, "step": 5, "seconds": 3.5}))
        (folder / "metrics.jsonl").write_text(LOG)


@pytest.fixture
def plan(tmp_path):
    plan = synthetic_plan(tmp_path / "results", lambda *_: 50.0, seeds=[0])
    fill(plan)
    return plan


@pytest.fixture
def m2pt(plan, capsys):
    def run(*words):
        code = main([*words, *plan.arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def tuned(plan):
    """The folder of the run behind M2PT-Point's tuned accuracy."""
    row = next(row for row in plan.tables["table"].rows if row.method == "M2PT-Point")
    [run] = plan.cell_runs("table", row, plan.tables["table"].columns[0])
    return plan.run_directory(run.name, 0)


@pytest.mark.parametrize(
    ("command", "damage"),
    [(("tabulate", "table"), damage) for damage in KINDS]
    + [
        (command, damage)
        for command in (("summarize",), ("plot", "curves"), ("export", "models"))
        for damage in SOME
    ],
)
def test_a_damaged_evaluation_is_refused_by_what_reads_it(plan, m2pt, command, damage):
    everywhere = [plan.run_directory(name, 0) / "evaluation.json" for name in plan.runs]
    for path in everywhere:
        put(path, damage)
    code, _, said = m2pt(*command)
    assert code == 2 and said.startswith(f"m2pt {command[0]}: error: ")
    assert any(str(path) in said for path in everywhere)
    assert len(said) < 3000 * len(everywhere)


@pytest.mark.parametrize("damage", KINDS)
def test_show_says_what_is_damaged(plan, m2pt, damage):
    path = tuned(plan) / "evaluation.json"
    put(path, damage)
    code, said, _ = m2pt("show", "table:M2PT-Point:tune_acc")
    assert code == 0 and f"seed 0: {path}" in said


@pytest.mark.parametrize("damage", SOME)
@pytest.mark.parametrize("name", ["run.json", "finished.json"])
def test_a_plan_names_a_damaged_training(plan, m2pt, name, damage):
    put(tuned(plan) / name, damage)
    code, _, said = m2pt("plan", "table", "--items", "imagenet=100")
    assert code == 2 and said.startswith(f"m2pt plan: error: {tuned(plan) / name}")


@pytest.mark.parametrize("damage", SOME)
def test_a_plan_names_damaged_costs(plan, m2pt, damage):
    put(plan.results / "step_costs.json", damage)
    code, _, said = m2pt("plan", "table")
    assert code == 2 and said.startswith(f"m2pt plan: error: {plan.results / 'step_costs.json'}")


@pytest.mark.parametrize("damage", SOME)
def test_a_plan_names_a_damaged_manifest(plan, m2pt, damage):
    path = plan.manifest("imagenet")
    path.parent.mkdir()
    put(path, damage)
    code, _, said = m2pt("plan", "table")
    assert code == 2 and said.startswith(f"m2pt plan: error: {path}")


@pytest.mark.parametrize("damage", KINDS)
def test_clean_leaves_a_damaged_training_where_it_is(plan, m2pt, damage):
    folder = plan.results / "runs" / "imagenet-tune-from-nothing" / "seed0"
    folder.mkdir(parents=True)
    put(folder / "run.json", damage)
    for path in (folder / "run.json", folder):
        if damage != "a device":
            os.utime(path, (1e9, 1e9))
    code, said, _ = m2pt("clean", "--yes")
    assert code in (0, 1) and str(folder) in said
    assert (folder / "run.json").exists()


@pytest.mark.parametrize("damage", KINDS)
def test_a_table_is_made_again_whatever_lies_in_its_place(plan, m2pt, damage):
    path = plan.results / "cells.json"
    put(path, damage)
    code, _, said = m2pt("tabulate", "table")
    if damage == "a folder":
        assert code == 2 and path.name in said
    else:
        assert code == 0 and json.loads(path.read_text())[tuned(plan).relative_to(plan.results).as_posix()]


def test_the_tracker_mirrors_what_is_sound_and_names_what_is_not(plan, capsys, monkeypatch):
    """Each seed but one has another file damaged in another way, and so have the cells and all cursors."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert mirror_once(plan.results, None) == 0
    for cursor in (plan.results / "tracking").rglob("*.json"):
        put(cursor, "wrong types")
    sound = plan.run_directory(next(iter(plan.runs)), 0)
    names = ("run.json", "evaluation.json", "metrics.jsonl")
    damages = [
        (name, damage) for name in names for damage in KINDS if (name, damage) != ("run.json", "a folder")
    ]
    broken = {}
    for seed, (name, damage) in enumerate(damages, start=1):
        folder = sound.with_name(f"seed{seed}")
        folder.mkdir()
        for file in (*names, "finished.json"):
            (folder / file).write_bytes((sound / file).read_bytes())
        put(folder / name, damage)
        if damage in DAMAGES and name == "metrics.jsonl":
            with (folder / name).open("ab") as file:
                file.write(b"\n")  # a line without an end is one that is being written
        broken[f"{folder.relative_to(plan.results).as_posix()}: "] = name
    put(plan.results / "cells.json", "cut")
    capsys.readouterr()
    assert mirror_once(plan.results, None) == 1
    said = capsys.readouterr().err.splitlines()
    for place, name in broken.items():
        [line] = [line for line in said if place in line]
        assert name in line.partition(place)[2] and len(line) < 2000
    assert sum("cells.json: " in line for line in said) == 1
    assert len(said) == len(broken) + 2  # and how many points wait
