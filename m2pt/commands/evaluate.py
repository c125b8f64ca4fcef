"""`m2pt evaluate RUN`: the merged, plain model on the validation split; writes evaluation.json."""

import argparse
import math
from itertools import islice
from typing import TYPE_CHECKING

from m2pt.commands.planned import add_plan_arguments, add_seed_argument, expect, load_plan

if TYPE_CHECKING:
    from m2pt.schema.plan import Plan, Run

COMPARED = 8
"""Batches on which the merged and the unmerged model are compared."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="name of a finetuned run, a folder under results/runs")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate; fail if merged and unmerged predictions differ beyond float32 rounding.

    Raises:
        InputError: weights are missing or stale.
        RunError: the merged model is not the unmerged one.
        Interrupted: it was asked to stop, and begins anew when it is run again.
    """
    from m2pt.training.signals import stopping_at_once

    plan = load_plan(arguments)
    planned = plan.finetuned(arguments.run)
    expect(arguments, planned.digest)
    with stopping_at_once():
        _evaluate(plan, planned, arguments.seed)


def _evaluate(plan: "Plan", planned: "Run", seed: int) -> None:
    from m2pt import pathway
    from m2pt.commands import assembled, trained
    from m2pt.models.exchange import load_exchange
    from m2pt.reporting.provenance import provenance
    from m2pt.tasks.evaluation import evaluate
    from m2pt.tasks.target import largest_difference
    from m2pt.training.launch import launch, leave, rank_and_world
    from m2pt.training.loading import evaluation_loader

    spec, directory = plan.seeded_spec(planned, seed), plan.run_directory(planned.name, seed)
    trained.set_threads(plan)
    task = assembled.target_task(spec)
    merged, attached = assembled.target_model(spec, merged=True), assembled.target_model(spec)
    assembled.attached_like(attached, planned)
    for model, name in ((merged, "merged"), (attached, "attached")):
        path = directory / f"{name}.safetensors"
        load_exchange(model, trained.load_input(plan, path, spec), source=str(path))
    dataset = trained.open_dataset(plan, spec, "val", seed=seed, training=False)
    views = math.prod(spec["recipe"].get("evaluation", {}).values())  # of one sample; 1 if there are no views
    batch_size = max(1, spec["recipe"]["training"]["batch_size"] // views)
    device = launch("no", plan.config.device).device
    merged.to(device)
    loading = (dataset, batch_size, planned.execution["num_workers"], task.collate)
    if trained.is_main():
        first = islice(evaluation_loader(*loading), COMPARED)  # the same ones for any number of processes
        difference = largest_difference(task, merged, attached.to(device), first, device)
        assembled.check_difference(difference, str(directory / "merged.safetensors"))
    rank, world = rank_and_world()
    metrics = evaluate(task, merged, evaluation_loader(*loading, rank=rank, world=world), device)
    leave()
    if metrics is None:
        return
    made = provenance(
        threads=plan.config.threads,
        device=trained.device_name(plan),
        manifest_digest=trained.manifest_digest(plan, planned.experiment.dataset),
    )
    trained.write_evaluation(
        directory,
        metrics,
        scales=pathway.scales(attached),
        merged_difference=difference,
        seed=seed,
        spec=spec,
        training=trained.training_of(directory),
        provenance=made,
    )
