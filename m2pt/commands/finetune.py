"""`m2pt finetune RUN`: attach the auxiliaries to a target and finetune it; writes attached.safetensors."""

import argparse
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from m2pt.command_line import add_plan_arguments, add_seed_argument, expect, load_plan

if TYPE_CHECKING:
    from torch import nn

    from m2pt.session import Setup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="name of a finetuned run, a folder under results/runs")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Finetune and save the weights with their pathways.

    Raises:
        InputError: the dataset or the weights are missing, stale or do not fit.
    """
    from m2pt import build, pathway, session
    from m2pt.formats.weights import save_weights
    from m2pt.inputs import open_dataset
    from m2pt.models.exchange import join_average, to_exchange
    from m2pt.plan.jobs import Jobs
    from m2pt.run_files import ATTACHED
    from m2pt.training.averaging import MergedAverage
    from m2pt.training.launch import leave

    plan, seed = load_plan(arguments), arguments.seed
    run = plan.run(arguments.run, "finetune")
    expect(arguments, run.digest)
    training = Jobs(plan).training(run, seed)
    ema = training.settings.ema
    average: MergedAverage | None = None

    def set_up() -> "Setup":
        nonlocal average
        dataset = open_dataset(plan, training.spec, "train", seed=seed, training=True)
        start = partial(build.start_from_inputs, plan=plan, run=run, seed=seed)
        model, task = build.run_model(run, start, seed=seed), build.target_task(run.spec)
        average = None if ema is None else MergedAverage(model, ema)
        return session.Setup(
            model, task.loss, dataset, task.collate, describe=pathway.scales, average=average
        )

    def export(model: "nn.Module", made: Mapping[str, Any]) -> None:
        leave()
        if session.is_main_process():
            state = to_exchange(model.state_dict())
            if average is not None:
                state = join_average(state, to_exchange(average.merged()))
            save_weights(
                training.directory / ATTACHED, state, session.weights_metadata(training.stored, seed)
            )

    session.train(plan, training, set_up, export)
