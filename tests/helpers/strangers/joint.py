"""A kind of run: one classifier is trained on several datasets at once, with a training method."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from m2pt.command_line import add_plan_arguments, add_seed_argument, expect, load_plan
from m2pt.config.experiment import Experiment
from m2pt.config.names import Name
from m2pt.config.paths import FilePath
from m2pt.config.strict import Strict
from m2pt.config.tables import Column, Factors
from m2pt.errors import InputError
from m2pt.plan.experiments import target_init
from m2pt.training.method import Step


class Settings(Strict):
    """An entry of the config section `joint`."""

    recipe: FilePath
    datasets: tuple[Name, ...]


def experiments(config: Any, factors: Factors, column: Column) -> Iterator[Experiment]:
    if column.dataset not in config.joint:
        raise InputError(f"the config has no joint.{column.dataset} section")
    yield Experiment(
        task=column.task,
        dataset=column.dataset,
        mode="tune",
        target_init=target_init(config, factors),
        pathway=factors.pathway,
        other_datasets=config.joint[column.dataset].datasets,
    )


def recipe(config: Any, experiment: Experiment, body: str) -> str:
    return config.joint[experiment.dataset].recipe


class Joined(Dataset[Any]):
    def __init__(self, datasets: Sequence[Any]) -> None:
        self.places = [(dataset, index) for dataset in datasets for index in range(len(dataset))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        dataset, index = self.places[key[1]]
        return dataset[key[0], index]


class Halved:
    """Halves every gradient and counts the steps."""

    def __init__(self) -> None:
        self.steps = 0

    def before_step(self, model: nn.Module, step: Step) -> Mapping[str, Tensor]:
        self.steps += 1
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= 2
        return {"halved": torch.tensor(self.steps)}

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.steps = state["steps"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    from m2pt import build, session
    from m2pt.formats.weights import save_weights
    from m2pt.inputs import open_dataset
    from m2pt.models.exchange import to_exchange
    from m2pt.plan.jobs import Jobs
    from m2pt.run_files import ATTACHED

    plan, seed = load_plan(arguments), arguments.seed
    run = plan.run(arguments.run, "joint")
    expect(arguments, run.digest)
    training = Jobs(plan).training(run, seed)

    def set_up() -> session.Setup:
        datasets = [
            open_dataset(plan, run.spec, "train", seed=seed, training=True, dataset=each)
            for each in run.spec.datasets
        ]
        start = partial(build.start_from_inputs, plan=plan, run=run, seed=seed)
        model, task = build.run_model(run, start, seed=seed), build.target_task(run.spec)
        return session.Setup(model, task.loss, Joined(datasets), task.collate, method=Halved())

    def export(model: nn.Module, made: Mapping[str, Any]) -> None:
        state: dict[str, Tensor] = to_exchange(model.state_dict())
        save_weights(training.directory / ATTACHED, state, session.weights_metadata(training.stored, seed))

    session.train(plan, training, set_up, export)
