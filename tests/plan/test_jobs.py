"""The jobs and trainings of tables and figures, in order."""

import re
import subprocess
import sys

import yaml
from tiny_trainings import TINY

from m2pt.plan.jobs import jobs, trainings
from m2pt.plan.plan import Plan


def test_the_jobs_are_those_of_the_workflow():
    """What `m2pt show` prints for pasting is what Snakemake runs, by its own dry run of the real rules."""
    words = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--configfile", str(TINY)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = re.findall(r"^Shell command: (m2pt .*)$", done.stdout + done.stderr, re.MULTILINE)
    printed = {re.split(r" --expect | > ", line)[0] for line in lines}
    reports = ("tabulate", "plot", "summarize")
    expected = {line for line in printed if line.split()[1] not in reports}
    assert {job.command for job in jobs(Plan.load(TINY))} == expected and len(expected) > 40


def test_a_dataset_is_made_in_steps_before_it_is_checked():
    datasets = yaml.safe_load(TINY.read_text())["datasets"]
    datasets["imagenet"] = {
        "layout": "imagenet",
        "num_classes": 3,
        "root": "my shards",
        "packed_from": "files",
    }
    datasets["imagenet"]["prepare"] = {"downloads": "tars"}
    datasets["audioset"] = {"layout": "audioset", "num_classes": 527, "root": "lists"}
    options = {"check": True, "unbalanced": False, "statistics": 0}
    datasets["audioset"]["prepare"] = {"downloads": "clips", **options}
    lines = [job.command for job in jobs(Plan.load(TINY, {"datasets": datasets}))]
    check = next(line for line in lines if line.startswith("m2pt data check imagenet "))
    expected = [
        "m2pt data prepare imagenet tars files --num-classes 3",
        "m2pt data pack imagenet files 'my shards'",
        check,
    ]
    assert [line for line in lines if line in expected] == expected
    assert "m2pt data prepare audioset clips lists --check --statistics 0 --num-classes 527" in lines


def test_how_a_dataset_is_made_is_no_part_of_a_run():
    def digests(**keys):
        imagenet = {"layout": "imagenet", "num_classes": 3, "root": "data", **keys}
        datasets = yaml.safe_load(TINY.read_text())["datasets"] | {"imagenet": imagenet}
        return {name: run.digest for name, run in Plan.load(TINY, {"datasets": datasets}).runs.items()}

    assert digests() == digests(prepare={"downloads": "tars"}, packed_from="files")


def test_a_job_comes_once_and_after_those_that_it_waits_for():
    plan = Plan.load(TINY, {"seeds": [0, 1], "pretrain_seeds": [0, 1]})
    known: set[int] = set()
    for job in jobs(plan):
        assert id(job) not in known and {id(need) for need in job.needs} <= known
        known.add(id(job))
    assert len({job.makes for job in jobs(plan)}) == len(known)


def test_a_training_comes_after_those_whose_weights_it_reads():
    plan = Plan.load(TINY, {"seeds": [0, 1, 2], "pretrain_seeds": [0, 1]})
    every = trainings(plan, plan.runs.values())
    known: dict[str, object] = {}
    for training in every:
        assert all(need in known for need in training.needs)
        known[training.id] = training
        if training.run is not None:
            read = plan.input_weights(training.name, training.seed).values()
            folders = {known[need].directory for need in training.needs}
            not_trained = {"random", "image_convnext"}
            expected = {path.parent for path in read if path.parent.parent.name not in not_trained}
            early = plan.encoder_directory("pointcloud_early", plan.pretrain_seed(training.seed))
            if early in expected:
                expected = expected - {early} | {early.parent.parent / "pointcloud" / early.name}
            assert folders == expected
    assert {t.seed for t in every if t.run is None} == {0, 1} and {t.seed for t in every if t.run} == {
        0,
        1,
        2,
    }


def test_a_figure_asks_for_the_runs_of_its_cells_alone(document):
    ids = {each["id"] for each in document("curves")["trainings"]}
    assert {id.rpartition("-")[0] or id for id in ids} == {
        "pretrain image seed0",
        "pretrain pointcloud seed0",
        "finetune imagenet-tune-from-image",
        "finetune imagenet-tune-from-image-pointcloud",
    }
