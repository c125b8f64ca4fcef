"""The jobs and trainings of tables and figures, in order."""

import re
import subprocess
import sys

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
