"""`m2pt multimodal RUN`: train a classifier on several modalities with a balancing method, and evaluate it.

Writes model.safetensors, the weights of the epoch with the best validation accuracy, and evaluation.json:
their accuracy on the whole test split, which is read once, at the end.
"""

import argparse
from collections.abc import Iterable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from m2pt.command_line import add_plan_arguments, add_seed_argument, expect, load_plan

if TYPE_CHECKING:
    from torch import nn

    from m2pt.session import Setup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="name of a multimodal run, a folder under results/runs")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train, select the epoch on the validation split, evaluate on the test split.

    Raises:
        InputError: the dataset or the weights are missing, stale or do not fit.
    """
    from m2pt import build, multimodal, session
    from m2pt.evaluation import write_evaluation
    from m2pt.formats.weights import save_weights
    from m2pt.inputs import open_dataset
    from m2pt.plan.jobs import Jobs
    from m2pt.run_files import MODEL
    from m2pt.selection import SelectedOnValidation
    from m2pt.tasks.evaluation import evaluate
    from m2pt.training.launch import leave, rank_and_world
    from m2pt.training.loading import evaluation_loader
    from m2pt.training.progress import announced

    plan, seed = load_plan(arguments), arguments.seed
    run = plan.run(arguments.run, "multimodal")
    expect(arguments, run.digest)
    training, task = Jobs(plan).training(run, seed), build.target_task(run.spec)
    selected: SelectedOnValidation

    @cache
    def test_split() -> Any:
        return open_dataset(plan, run.spec, "test", seed=seed, training=False)

    def batches(dataset: Any, rank: int, world: int) -> Iterable[Any]:
        settings = training.settings
        return evaluation_loader(
            dataset, settings.batch_size, settings.num_workers, task.collate, rank=rank, world=world
        )

    def set_up() -> "Setup":
        nonlocal selected
        test_split()  # report its problems now, not after the training
        dataset = open_dataset(plan, run.spec, "train", seed=seed, training=True, checked=True)
        validation = open_dataset(plan, run.spec, "val", seed=seed, training=False, checked=True)
        start = partial(multimodal.load_encoders, plan=plan, run=run, seed=seed)
        method: Any = build.run_model(run, start, seed=seed)
        recipe: Any = run.spec.recipe
        selected = SelectedOnValidation(method, task, partial(batches, validation), recipe.head_clip)
        return session.Setup(method, task.loss, dataset, task.collate, method=selected)

    def export(method: "nn.Module", made: Mapping[str, Any]) -> Mapping[str, float] | None:
        model = selected.method.model
        model.load_state_dict(selected.best)
        if session.is_main_process():
            metadata = session.weights_metadata(training.stored, seed)
            save_weights(training.directory / MODEL, model.state_dict(), metadata)
        device = next(model.parameters()).device
        rank, world = rank_and_world()
        announce = partial(announced, what=f"testing {run.name}") if rank == 0 else iter
        metrics = evaluate(task, model, batches(test_split(), rank, world), device, announce)
        leave()
        if metrics is None:
            return None
        metrics["val_top1"] = 100 * selected.best_accuracy
        write_evaluation(plan, run, seed, metrics, made, selected_epoch=selected.best_epoch)
        return metrics

    session.train(plan, training, set_up, export)
