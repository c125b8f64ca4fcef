"""`m2pt evaluate RUN`: the merged, plain model on the validation split; writes evaluation.json."""

import argparse

from m2pt.commands.planned import add_plan_arguments, add_seed_argument, expect, load_plan
from m2pt.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="name of a classification run, a folder under results/runs")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate; fail if merged and unmerged logits differ beyond float32 rounding.

    Raises:
        InputError: weights are missing or stale, or the merged model is not the unmerged one.
    """
    from m2pt.commands import assembled, trained
    from m2pt.models.exchange import load_exchange
    from m2pt.reporting.provenance import provenance
    from m2pt.tasks.classification import evaluate, logits_difference
    from m2pt.training.launch import launch
    from m2pt.training.loading import evaluation_loader

    plan = load_plan(arguments)
    seed, planned = arguments.seed, plan.run(arguments.run)
    expect(arguments, planned.digest)
    spec, directory = plan.seeded_spec(planned, seed), plan.run_directory(planned.name, seed)

    trained.set_threads(plan)
    merged, attached = assembled.classifier(spec), assembled.classifier(spec)
    assembled.attached_like(attached, planned)
    for model, name in ((merged, "merged"), (attached, "attached")):
        path = directory / f"{name}.safetensors"
        load_exchange(model, trained.load_input(plan, path, spec), source=str(path))
    dataset = trained.open_dataset(
        plan,
        planned.experiment.dataset,
        "val",
        seed=seed,
        augmentation=None,
        input=spec["architecture"]["input"],
    )
    settings = spec["recipe"]["training"]
    loader = evaluation_loader(dataset, settings["batch_size"], settings["num_workers"])
    device = launch("no", plan.config.device).device
    merged.to(device)
    difference = logits_difference(merged, attached.to(device), loader, device)
    if not difference <= assembled.ROUNDING:
        raise InputError(
            f"{directory}: the logits of merged.safetensors differ from those of attached.safetensors by "
            f"{difference:.2g} of the largest, more than float32 rounding ({assembled.ROUNDING}); "
            f"merge them again: {plan.command(directory / 'merged.safetensors', again=True)}"
        )
    made = provenance(
        threads=plan.config.threads,
        device=trained.device_name(plan),
        manifest_digest=trained.manifest_digest(plan, planned.experiment.dataset),
    )
    trained.write_evaluation(
        directory,
        evaluate(merged, loader, device),
        merged_logits_difference=difference,
        seed=seed,
        spec=spec,
        provenance=made,
    )
