"""`m2pt transfer RUN`: train a detector or segmenter on a merged backbone and evaluate it."""

import argparse
from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from m2pt.command_line import add_plan_arguments, add_seed_argument, expect, load_plan

if TYPE_CHECKING:
    from torch import nn

    from m2pt.session import Setup

COMPARED = 1
"""Batches on which the merged and the unmerged model are compared."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="name of a transfer run, a folder under results/runs")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train, merge the pathways if there are any, evaluate the plain model.

    Raises:
        InputError: the dataset or the weights are missing, stale or do not fit.
        RunError: merging changed the predictions.
    """
    import copy

    from m2pt import build, pathway, session
    from m2pt.evaluation import MergedRun, compare, evaluate_merged, log_start
    from m2pt.formats.weights import save_weights
    from m2pt.inputs import open_dataset
    from m2pt.plan.jobs import Jobs
    from m2pt.run_files import MERGED
    from m2pt.training.averaging import MergedAverage

    plan, seed = load_plan(arguments), arguments.seed
    run = plan.run(arguments.run, "transfer")
    expect(arguments, run.digest)
    training = Jobs(plan).training(run, seed)
    task = build.target_task(run.spec)
    ema = training.settings.ema
    average: MergedAverage | None = None

    @cache
    def validation() -> Any:
        return open_dataset(plan, training.spec, "val", seed=seed, training=False)

    def set_up() -> "Setup":
        nonlocal average
        validation()  # report its problems now, not after the training
        dataset = open_dataset(plan, training.spec, "train", seed=seed, training=True, checked=True)
        start = partial(build.start_from_inputs, plan=plan, run=run, seed=seed)
        model = build.run_model(run, start, seed=seed)
        average = None if ema is None else MergedAverage(model, ema)
        return session.Setup(
            model, task.loss, dataset, task.collate, describe=pathway.scales, average=average
        )

    def export(model: "nn.Module", made: Mapping[str, Any]) -> dict[str, float] | None:
        merged = pathway.merge(copy.deepcopy(model))
        batch_size = training.settings.batch_size
        subject = MergedRun(plan, run, seed, task, merged, model, validation(), batch_size)
        log_start(subject, made["device"])
        difference = compare(subject, COMPARED)
        if average is not None:
            merged.load_state_dict(average.merged())
        if session.is_main_process():
            metadata = session.weights_metadata(training.stored, seed)
            save_weights(training.directory / MERGED, merged.state_dict(), metadata)
        return evaluate_merged(subject, difference, made)

    session.train(plan, training, set_up, export)
