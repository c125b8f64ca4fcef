"""`m2pt transfer RUN`: train a detector or segmenter on a merged backbone and evaluate it."""

import argparse
from typing import TYPE_CHECKING, Any

from m2pt.commands.planned import add_plan_arguments, add_seed_argument, expect, load_plan

if TYPE_CHECKING:
    from m2pt.models.transformer import Encoder
    from m2pt.schema.plan import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="name of a transfer run, a folder under results/runs")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train, merge what was attached, evaluate the plain model."""
    from m2pt import pathway
    from m2pt.commands import assembled, trained
    from m2pt.datasets.seeded import seed_generators
    from m2pt.formats.weights import save_weights
    from m2pt.models.transformer import build_encoder
    from m2pt.training import checkpoint
    from m2pt.training.loading import evaluation_loader
    from m2pt.training.loop import fit
    from m2pt.training.settings import TrainingSettings

    plan = load_plan(arguments)
    seed, planned = arguments.seed, plan.run(arguments.run)
    expect(arguments, planned.digest)
    experiment, spec = planned.experiment, plan.seeded_spec(planned, seed)
    recipe = spec["recipe"]

    trained.set_threads(plan)
    train, val = (
        trained.open_dataset(
            plan, experiment.dataset, split, seed=seed, augmentation=augmentation, input=recipe["input"]
        )
        for split, augmentation in (("train", recipe["augmentation"]), ("val", None))
    )
    directory, weights = plan.run_directory(planned.name, seed), plan.input_weights(planned.name, seed)
    seed_generators(seed)
    encoder = build_encoder(
        **{**spec["architecture"], "input": recipe["input"]}, drop_path=recipe["drop_path"]
    )
    assembled.start_from_inputs(encoder, plan, planned, seed)
    scales = [p for name, p in encoder.named_parameters() if pathway.is_scale(name) and p.requires_grad]
    model, task = dense_model(planned, encoder)
    if experiment.mode == "fix":  # a frozen backbone is one whose matrices stay
        for scale in scales:
            scale.requires_grad_(True)
    identity, made = trained.describe_run(
        directory,
        name=planned.name,
        spec=spec,
        seed=seed,
        plan=plan,
        weights=weights,
        dataset=experiment.dataset,
    )
    settings = TrainingSettings(**recipe["training"])
    trained.check_room(directory, model)
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
    if not trained.is_main():
        return
    assembled.merge_checked(encoder, recipe["input"]["image_size"])
    save_weights(directory / "merged.safetensors", model.state_dict(), trained.metadata(spec, seed))
    loader = evaluation_loader(val, settings.batch_size, settings.num_workers, task.collate)
    metrics = task.evaluate(model, loader, next(model.parameters()).device)
    trained.write_evaluation(directory, metrics, seed=seed, spec=spec, provenance=made)
    checkpoint.remove(directory, checkpoint.FINAL)


def dense_model(run: "Run", encoder: "Encoder") -> tuple[Any, Any]:
    """Return the model around the encoder, and its task's module."""
    settings = {
        **run.spec["recipe"]["model"],
        "num_classes": run.spec["dataset"]["num_classes"],
        "image_size": run.spec["recipe"]["input"]["image_size"],
        "freeze_backbone": run.experiment.mode == "fix",
    }
    if run.experiment.task == "detection":
        from m2pt.models.mask_rcnn import build_mask_rcnn
        from m2pt.tasks import detection

        return build_mask_rcnn(encoder, **settings), detection
    from m2pt.models.upernet import build_upernet
    from m2pt.tasks import semantic_segmentation

    return build_upernet(encoder, **settings), semantic_segmentation
