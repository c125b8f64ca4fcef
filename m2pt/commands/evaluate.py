"""`m2pt evaluate RUN`: the merged, plain model on the validation split; writes evaluation.json."""

import argparse
from typing import TYPE_CHECKING

from m2pt.command_line import add_plan_arguments, add_seed_argument, expect, load_plan

if TYPE_CHECKING:
    from m2pt.plan.plan import Plan
    from m2pt.plan.runs import Run

COMPARED = 8
"""Batches on which the merged and the unmerged model are compared."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="name of a finetuned run, a folder under results/runs")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, and fail if merged and unmerged predictions differ beyond float32 rounding.

    Raises:
        InputError: weights are missing or stale.
        RunError: merging changed the predictions.
        Interrupted: a stop signal arrived; the next attempt starts over.
    """
    from m2pt.commands import import_libraries
    from m2pt.training.signals import exit_on_stop_signal

    plan = load_plan(arguments)
    run = plan.run(arguments.run, "evaluate")
    expect(arguments, run.digest)
    with exit_on_stop_signal():
        import_libraries()
        _evaluate(plan, run, arguments.seed)


def _evaluate(plan: "Plan", run: "Run", seed: int) -> None:
    import copy
    from dataclasses import replace

    from m2pt import build, job_log, pathway, session
    from m2pt.evaluation import MergedRun, compare, evaluate_merged, log_start
    from m2pt.inputs import load_input, manifest_digest, open_dataset
    from m2pt.models.exchange import load_exchange, split_average
    from m2pt.provenance import provenance
    from m2pt.run_files import ATTACHED, EVALUATION, MERGED
    from m2pt.training.launch import launch

    spec, stored, directory = run.spec, plan.stored_spec(run, seed), plan.run_directory(run.name, seed)
    session.set_threads(plan)
    task = build.target_task(spec)
    merged, attached = build.target_model(spec, merged=True), build.target_model(spec)
    build.attach_placeholders(attached, run)
    for model, name in ((merged, MERGED), (attached, ATTACHED)):
        state, _ = split_average(load_input(plan, directory / name, stored))
        load_exchange(model, state, source=str(directory / name))
    dataset = open_dataset(plan, spec, "val", seed=seed, training=False)
    device = launch("no", plan.config.device).device
    batch_size = max(1, spec.recipe.training.batch_size // spec.recipe.num_views)
    subject = MergedRun(plan, run, seed, task, merged.to(device), attached.to(device), dataset, batch_size)
    made = provenance(
        threads=plan.config.threads,
        device=session.device_name(plan),
        manifest_digest=manifest_digest(plan, run.experiment.dataset),
    )
    log_start(subject, made["device"])
    compared = subject
    if spec.recipe.training.ema is not None:  # merged.safetensors has the average, not the attached weights
        compared = replace(subject, merged=pathway.merge(copy.deepcopy(subject.attached)))
    metrics = evaluate_merged(subject, compare(compared, COMPARED), made)
    if metrics is not None:
        job_log.end(directory / EVALUATION, metrics=metrics)
