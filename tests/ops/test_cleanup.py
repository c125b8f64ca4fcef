"""`m2pt clean`: what nothing asks for is listed and, when told so, removed; nothing else is touched."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from m2pt import run_files
from m2pt.catalog import commands
from m2pt.commands import main
from m2pt.locks import locked
from m2pt.ops import cleanup
from m2pt.plan.jobs import used_encoders
from m2pt.plan.plan import Plan
from m2pt.run_files import CHECKSUMS
from m2pt.tracking import liveness

TINY = "tests/tiny/config.yaml"
LONG_AGO = time.time() - 3 * 24 * 3600


def training(directory, *, host="elsewhere", pid=1, finished=True, extra=(), **provenance):
    """A training's folder as it lies there, last written to three days ago."""
    directory.mkdir(parents=True)
    provenance |= {"host": host, "pid": pid, "device": "cpu"}
    (directory / "run.json").write_text(json.dumps({"spec": {}, "seed": 0, "provenance": provenance}))
    names = [
        "metrics.jsonl",
        "train.log",
        "merged.safetensors",
        *(["finished.json"] if finished else ()),
        *extra,
    ]
    for name in names:
        (directory / name).write_text("x" * 100)
    for path in (*directory.iterdir(), directory):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return directory


def file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return path


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def clean(results, capsys):
    def run(*arguments, config=(TINY,)):
        code = main(["clean", "--config", *config, "--set", f"results={results}", *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def needed_trainings(results, *seeds):
    """A folder of every run and encoder that the tiny config needs."""
    plan = Plan.load(Path(TINY), {"results": str(results)})
    for seed in seeds or (0,):
        for name in plan.runs:
            training(plan.run_directory(name, seed))
    return [*(training(plan.encoder_directory(name, 0)) for name in used_encoders(plan))], plan


def test_without_a_terminal_it_only_lists(results, clean):
    needed_trainings(results)
    old = training(results / "runs" / "imagenet-old-01234567" / "seed0")
    code, said = clean()
    assert code == 0 and str(old) in said and "0.0 MiB  in 1 folder that can be removed" in said
    assert "no terminal to confirm on" in said and "--yes" in said
    assert old.exists() and said.count("/seed0") == 1


def test_what_is_asked_for_stays_and_the_rest_goes_with_what_belongs_to_it(results, clean):
    encoders, plan = needed_trainings(results)
    name = "imagenet-old-01234567"
    run = training(
        results / "runs" / name / "seed0",
        extra=["attached.safetensors", ".resume.pt.0badcafe-17-4711-a1b2c3.part"],
    )
    encoder = training(results / "encoders" / "old" / "seed0", extra=["encoder.safetensors"])
    unused_seed = training(plan.run_directory(next(iter(plan.runs)), 7))
    kept_name = next(iter(plan.runs))
    gone = [
        file(results / "logs" / "runs" / f"{name}-seed0.finetune.log"),
        file(results / "logs" / "encoders" / "old-seed0.log"),
        file(results / "benchmarks" / "evaluate" / f"{name}-seed0.tsv"),
        file(results / "tracking" / "default" / "runs" / name / "seed0.json"),
    ]
    stay = [
        file(results / "logs" / "runs" / f"{kept_name}-seed0.finetune.log"),
        file(results / "tracking" / "default" / "runs" / kept_name / "seed0.json"),
        file(results / "mlflow.db"),
        file(results / "data" / "imagenet" / "seed0" / "run.json"),
        file(results / "data" / "imagenet.manifest.json"),
        file(results / "table1.csv"),
        file(results / "paper" / "runs" / name / "seed0" / "run.json"),  # another config's results
    ]
    code, said = clean("--yes")
    assert code == 0, said
    assert not any(path.exists() for path in (run, run.parent, encoder, encoder.parent, unused_seed, *gone))
    assert all(
        path.exists() for path in (*encoders, *(plan.run_directory(name, 0) for name in plan.runs), *stay)
    )
    assert "is needed by" in clean("--yes")[1]


def test_all_logs_and_benchmarks_that_the_rules_write_for_a_training_are_removed(results, clean):
    training(results / "runs" / "old-01234567" / "seed0")
    training(results / "encoders" / "old" / "seed0")
    rules = "".join(path.read_text() for path in Path("workflow/rules").glob("*.smk"))
    folders = {"LOGS": results / "logs", "BENCHMARKS": results / "benchmarks", "files": run_files}
    patterns = re.findall(r'^ +f"({(?:LOGS|BENCHMARKS)}/.*{{(?:run|encoder)}}.*)",?$', rules, re.MULTILINE)
    written = {
        file(Path(pattern.format(**folders).format(run="old-01234567", encoder="old", seed=0)))
        for pattern in patterns
    }
    assert len(patterns) == 2 * (len(commands()) + 2)  # two rules make encoders
    assert clean("--yes")[0] == 0
    assert sorted(path for path in written if path.exists()) == []


def test_random_encoders_of_every_seed_are_asked_for(results, clean):
    """Random weights are drawn for each run's seed, pretrained ones only for the pretrainings' seeds."""
    random = training(results / "encoders" / "random" / "seed1")
    pretrained = training(results / "encoders" / "image" / "seed1")
    assert clean("--yes", "--set", "seeds=[0,1]")[0] == 0
    assert random.exists() and not pretrained.exists()


def test_slurm_is_asked_once_and_a_run_whose_job_is_gone_can_go(results, clean, monkeypatch):
    calls = []
    monkeypatch.setattr(liveness, "_squeue", lambda: calls.append(True) or "2:RUNNING\n")
    gone, runs = (
        training(results / "runs" / f"{name}-01234567" / "seed0", finished=False, slurm_job=job)
        for name, job in (("gone", "1"), ("runs", "2"))
    )
    twenty_minutes_ago = time.time() - 20 * 60
    for folder in (gone, runs):
        os.utime(folder / "metrics.jsonl", (twenty_minutes_ago, twenty_minutes_ago))
    assert clean("--yes")[0] == 0 and len(calls) == 1
    assert runs.exists() and not gone.exists()


def test_the_union_of_the_configs_is_kept(results, clean, tmp_path):
    text = Path(TINY).read_text()
    smaller = tmp_path / "smaller.yaml"
    smaller.write_text(
        text.replace(", tests/tiny/targets.yaml]", "]").replace(
            "figures: [tests/tiny/curves.yaml]\nclaims: tests/tiny/claims.yaml", ""
        )
    )
    plan = Plan.load(Path(TINY), {"results": str(results)})
    only_in_all = set(plan.runs) - set(Plan.load(smaller, {"results": str(results)}).runs)
    assert only_in_all
    for name in plan.runs:
        training(plan.run_directory(name, 0))
    listed = clean(config=[str(smaller)])[1]
    assert all(name in listed for name in only_in_all)
    assert not any(f"/{name}/" in listed for name in set(plan.runs) - only_in_all)
    assert "is needed by" in clean(config=[str(smaller), TINY])[1]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"finished": False, "host": "node17"}, None),
        (
            {"finished": False, "host": platform.node(), "pid": os.getpid()},
            f"process {os.getpid()} is training",
        ),
    ],
    ids=["gone", "alive"],
)
def test_a_training_that_goes_on_stays(results, clean, made, words):
    running = training(results / "runs" / "old-01234567" / "seed0", **made)
    code, said = clean("--yes")
    assert code == 0 and running.exists() == (words is not None)
    assert words is None or words in said


def test_another_machines_training_without_an_end_stays_for_a_day(results, clean):
    running = training(results / "runs" / "old-01234567" / "seed0", finished=False, host="node17")
    two_hours_ago = time.time() - 2 * 3600
    os.utime(running / "metrics.jsonl", (two_hours_ago, two_hours_ago))
    said = clean("--yes")[1]
    assert running.exists() and "written to 2 hours ago on node17" in said


def test_what_was_just_written_stays(results, clean):
    fresh = training(results / "runs" / "old-01234567" / "seed0")
    (fresh / "merged.safetensors").touch()
    said = clean("--yes")[1]
    assert fresh.exists() and "kept: written to 0 minutes ago" in said


def test_a_dead_process_of_this_machine_holds_nothing(results, clean):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = training(
        results / "runs" / "o-01234567" / "seed0", finished=False, host=platform.node(), pid=ended.pid
    )
    assert clean("--yes")[0] == 0 and not dead.exists()


def test_a_workflows_lock_forbids_to_remove(results, clean, tmp_path, monkeypatch):
    old = training(results / "runs" / "old-01234567" / "seed0")
    monkeypatch.setattr(cleanup, "workflow_locks", lambda folder: [Path(".snakemake/locks/0.output.lock")])
    code, said = clean("--yes")
    assert code == 2 and "a workflow runs in this folder" in said and "snakemake --unlock" in said
    assert old.exists()


def test_snakemakes_locks_are_found(tmp_path):
    assert cleanup.workflow_locks(tmp_path) == []
    lock = file(tmp_path / ".snakemake" / "locks" / "0.input.lock")
    assert cleanup.workflow_locks(tmp_path) == [lock]


def test_links_are_not_followed(results, clean, tmp_path):
    elsewhere = training(tmp_path / "elsewhere" / "seed0")
    (results / "runs").mkdir(parents=True)
    (results / "runs" / "linked-01234567").symlink_to(elsewhere.parent)
    half = results / "runs" / "half-01234567"
    half.mkdir()
    (half / "seed0").symlink_to(elsewhere)
    inside = training(results / "runs" / "inside-01234567" / "seed0")
    (inside / "merged.safetensors").unlink()
    (inside / "merged.safetensors").symlink_to(elsewhere / "merged.safetensors")
    os.utime(inside / "merged.safetensors", (LONG_AGO, LONG_AGO), follow_symlinks=False)
    os.utime(inside, (LONG_AGO, LONG_AGO))
    code, said = clean("--yes")
    assert code == 0 and "linked" not in said and "half" not in said
    assert not inside.exists() and len(list(elsewhere.iterdir())) == 5
    assert (half / "seed0").is_symlink() and (results / "runs" / "linked-01234567").is_symlink()


def test_a_results_folder_may_itself_be_a_link(results, clean, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    results.symlink_to(scratch)
    needed_trainings(results)
    old = training(scratch / "runs" / "old-01234567" / "seed0")
    log = file(scratch / "logs" / "runs" / "old-01234567-seed0.merge.log")
    assert clean("--yes")[0] == 0
    assert not old.exists() and not log.exists() and "is needed by" in clean()[1]


def test_a_file_that_is_not_ours_stays_with_its_folder(results, clean):
    old = training(results / "runs" / "old-01234567" / "seed0", extra=["notes.txt"])
    former = file(old / "superseded" / "final.pt")
    os.utime(former, (LONG_AGO, LONG_AGO))
    for folder in (former.parent, old):
        os.utime(folder, (LONG_AGO, LONG_AGO))
    code, said = clean("--yes")
    assert code == 1 and "notes.txt" in said
    assert [path.name for path in old.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("answer", "removed"), [("y", True), ("", False), ("n", False)])
def test_it_asks_on_a_terminal(results, clean, monkeypatch, answer, removed):
    old = training(results / "runs" / "old-01234567" / "seed0")
    questions = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or answer)
    assert clean()[0] == 0
    assert questions == ["Remove 1 folder? [y/N] "] and old.exists() != removed


def test_a_training_at_work_stays_wherever_it_began(results, clean):
    old = training(results / "runs" / "old-01234567" / "seed0")
    with locked(old / run_files.LOCK):
        for path in (old / run_files.LOCK, old):
            os.utime(path, (LONG_AGO, LONG_AGO))
        assert "is training" in clean("--yes")[1] and old.exists()
    assert clean("--yes")[0] == 0 and not old.exists()


def test_a_workflow_on_a_cluster_is_not_disturbed(results, clean, monkeypatch):
    (results.parent / "tests").symlink_to(Path("tests").resolve())
    monkeypatch.chdir(results.parent)
    old = training(results / "runs" / "old-01234567" / "seed0")
    with locked(Path(".snakemake/submitit/lock")):
        code, said = clean("--yes")
    assert code == 2 and "runs a workflow in this folder" in said and old.exists()


def test_a_tracker_at_work_is_not_disturbed(results, clean):
    from m2pt.tracking.follow import tracker_lock

    old = training(results / "runs" / "old-01234567" / "seed0")
    with tracker_lock(results):
        code, said = clean("--yes")
    assert code == 2 and "already mirrors" in said and old.exists()


def test_every_file_of_a_training_is_known_as_ours():
    names = [
        *(run_files.RESUME, run_files.FINAL, run_files.METRICS, run_files.LOG),
        *(run_files.FINISHED, run_files.FAILED, run_files.INTERRUPTED),
        *("run.json", "evaluation.json", "attached.safetensors", "merged.safetensors", CHECKSUMS),
        *("encoder.safetensors", "encoder-epoch220.safetensors", ".final.pt.0badcafe-17-4711-a1b2c3.part"),
    ]
    assert all(cleanup.WRITTEN.fullmatch(name) for name in names)
    assert cleanup.SUBFOLDERS == (run_files.SUPERSEDED, run_files.DAMAGED, run_files.KEPT)
    assert not cleanup.WRITTEN.fullmatch("notes.txt") and not cleanup.WRITTEN.fullmatch(
        "my_encoder.safetensors"
    )


def test_a_wrong_config_removes_nothing(results, clean):
    old = training(results / "runs" / "old-01234567" / "seed0")
    code, said = clean("--yes", config=[TINY, "tests/tiny/absent.yaml"])
    assert code == 2 and "absent.yaml" in said and old.exists()
