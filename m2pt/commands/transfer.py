"""`m2pt transfer RUN`: train a detector or segmenter on a merged backbone and evaluate it."""

import argparse

from m2pt.commands.planned import add_plan_arguments, add_seed_argument, expect, load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="name of a transfer run, a folder under results/runs")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train, merge what was attached, evaluate the plain model.

    Raises:
        InputError: the dataset or the weights are missing, stale or do not fit.
        RunError: the merged model is not the unmerged one.
    """
    import copy
    from itertools import islice

    from m2pt import pathway
    from m2pt.commands import assembled, trained
    from m2pt.datasets.seeded import seed_generators
    from m2pt.formats.weights import save_weights
    from m2pt.tasks.evaluation import evaluate
    from m2pt.tasks.target import largest_difference
    from m2pt.training.launch import leave, rank_and_world
    from m2pt.training.loading import evaluation_loader
    from m2pt.training.loop import fit
    from m2pt.training.settings import TrainingSettings

    plan = load_plan(arguments)
    seed, planned = arguments.seed, plan.transferred(arguments.run)
    expect(arguments, planned.digest)
    experiment, spec = planned.experiment, plan.seeded_spec(planned, seed)
    directory = plan.run_directory(planned.name, seed)

    training: trained.Training = {
        "name": planned.name,
        "spec": spec,
        "seed": seed,
        "plan": plan,
        "weights": plan.input_weights(planned.name, seed),
        "dataset": experiment.dataset,
    }

    with trained.at_work_in(directory):
        if trained.put_back(directory, **training):
            return
        trained.set_threads(plan)
        train = trained.open_dataset(plan, spec, "train", seed=seed, training=True)
        val = trained.open_dataset(plan, spec, "val", seed=seed, training=False)
        seed_generators(seed)
        backbone, task = assembled.dense_backbone(spec), assembled.target_task(spec)
        assembled.start_from_inputs(backbone, plan, planned, seed)
        scales = [p for name, p in backbone.named_parameters() if pathway.is_scale(name) and p.requires_grad]
        seed_generators(seed)  # heads start alike with and without auxiliaries
        model = assembled.dense_model(spec, backbone)
        if experiment.mode == "fix":  # a frozen backbone is one whose matrices stay
            for scale in scales:
                scale.requires_grad_(True)
        trained.check_room(directory, model)
        identity, made = trained.describe_run(directory, **training)
        settings = TrainingSettings(**spec["recipe"]["training"], **planned.execution)
        fit(
            model,
            task.loss,
            train,
            settings=settings,
            directory=directory,
            identity=identity,
            seed=seed,
            collate=task.collate,
            describe=pathway.scales,
            device=plan.config.device,
        )
        rank, world = rank_and_world()
        loader = evaluation_loader(
            val, settings.batch_size, settings.num_workers, task.collate, rank=rank, world=world
        )
        device = next(model.parameters()).device
        plain = pathway.merge(copy.deepcopy(model))
        if trained.is_main():
            difference = largest_difference(task, plain, model, islice(loader, 1), device)
            assembled.check_difference(difference, planned.name)
            save_weights(directory / "merged.safetensors", plain.state_dict(), trained.metadata(spec, seed))
        metrics = evaluate(task, plain, loader, device)
        leave()
        if metrics is None:
            return
        trained.write_evaluation(
            directory,
            metrics,
            scales=pathway.scales(model),
            merged_difference=difference,
            seed=seed,
            spec=spec,
            training=trained.training_of(directory),
            provenance=made,
        )
        trained.keep_finished(directory, identity, ["merged.safetensors", "evaluation.json"])
