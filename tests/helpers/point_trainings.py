"""A small training that takes milliseconds: 20 random points, 3 epochs of 2 steps with 8 samples each."""

import json

import torch
from torch import nn
from torch.nn import functional

from m2pt.datasets.base import SeededDataset
from m2pt.training.loop import fit
from m2pt.training.settings import TrainingSettings

ITEMS, SEED = 20, 3


class Points(SeededDataset):
    def __len__(self):
        return ITEMS

    def load(self, index):
        return torch.randn(5), index % 3


def new_model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3))


def loss(model, batch):
    points, labels = batch
    return functional.cross_entropy(model(points), labels), {}


def train(directory, *, identity="feed", loss=loss, dataset=None, model=None, **options):
    """Call `fit`; `options` are its own or those of `TrainingSettings`."""
    settings = {"epochs": 3, "batch_size": 4, "accumulation": 2, "lr": 0.01, "log_every": 1}
    names = [name for name in options if name in TrainingSettings.__dataclass_fields__]
    settings |= {name: options.pop(name) for name in names}
    return fit(
        model or new_model(),
        loss,
        dataset or Points(SEED),
        settings=TrainingSettings(**settings),
        directory=directory,
        identity=identity,
        seed=SEED,
        **options,
    )


def train_until_killed(directory, **options):
    """Break a training of 6 steps off in step 5, after the checkpoint of step 4."""
    calls = []

    def breaking(model, batch):
        calls.append(0)
        if len(calls) > 2 * 4:
            raise KeyboardInterrupt
        return loss(model, batch)

    try:
        train(directory, loss=breaking, checkpoint_every=2, **options)
    except KeyboardInterrupt:
        return directory
    raise AssertionError("the training was not interrupted")


def logged(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
