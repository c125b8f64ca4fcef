"""A layout of pairs, an image and the spectrogram of a sound, and a kind of run that is trained on both.

`{train,val}/<class>-<number>.npz` holds `image` (3, S, S) and `audio` (1, frames, 16).
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.command_line import add_plan_arguments, add_seed_argument, load_plan
from m2pt.config.experiment import Experiment
from m2pt.config.paths import FilePath
from m2pt.config.recipes import Recipe
from m2pt.config.strict import Strict
from m2pt.config.tables import Column, Factors
from m2pt.datasets.base import SeededDataset
from m2pt.datasets.miniature.staging import staged, write_record
from m2pt.models.transformer import build_encoder

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Noise:
    """Augmentation: none."""


@dataclass(frozen=True)
class Input:
    """Number of frames of a spectrogram that are read."""

    frames: int = 16


class Reader(SeededDataset):
    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_classes: int,
        frames: int,
        seed: int = 0,
        augmentation: Noise | None = None,
    ) -> None:
        super().__init__(seed)
        self.paths, self.frames = sorted((root / split).glob("*.npz")), frames

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> tuple[dict[str, Tensor], int]:
        with np.load(self.paths[index]) as pair:
            image, audio = torch.from_numpy(pair["image"]), torch.from_numpy(pair["audio"])
        return {"image": image, "audio": audio[:, : self.frames]}, int(
            self.paths[index].name.partition("-")[0]
        )


def check(root: Path, *, num_classes: int, full: bool) -> list[str]:
    return []


def files(root: Path) -> Iterator[Path]:
    return root.glob("*/*.npz")


def classes(root: Path) -> list[str]:
    return sorted({path.name.partition("-")[0] for path in (root / "train").glob("*.npz")})


def counts(root: Path) -> dict[str, int]:
    return {split: len(list((root / split).glob("*.npz"))) for split in SPLITS}


def synthetic_batch(
    batch_size: int, *, num_classes: int, input: Mapping[str, Any], augmentation: Any, device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    shapes = {"image": (3, 32, 32), "audio": (1, input["frames"], 16)}
    inputs = {name: torch.randn(batch_size, *shape, device=device) for name, shape in shapes.items()}
    return inputs, torch.randint(num_classes, (batch_size,), device=device)


def build(root: Path, *, seed: int, train: int = 8, val: int = 4) -> None:
    rng = np.random.default_rng(seed)
    with staged(root) as folder:
        for split, count in (("train", train), ("val", val)):
            (folder / split).mkdir()
            for number in range(count):
                image, audio = rng.normal(number % 2, 1, (3, 32, 32)), rng.normal(number % 2, 1, (1, 64, 16))
                pair = {"image": image.astype(np.float32), "audio": audio.astype(np.float32)}
                np.savez(folder / split / f"{number % 2}-{number}.npz", **pair)
        write_record(folder, seed=seed, sizes={"train": train, "val": val}, sources={})


class Settings(Strict):
    """An entry of the config section `paired`."""

    recipe: FilePath


class Model(Strict):
    bias: bool = True


class PairRecipe(Recipe):
    model: Model = Model()

    def transformers(self, modalities: Sequence[str]) -> dict[str, Any]:
        return {"image": {}, "audio": {"input": {"frames": self.input.frames, "mel_bins": 16}}}


def experiments(config: Any, factors: Factors, column: Column) -> Iterator[Experiment]:
    yield Experiment(task=column.task, dataset=column.dataset, mode="tune", target_init=factors.target_init)


def recipe(config: Any, experiment: Experiment, body: str) -> str:
    return config.paired[experiment.dataset].recipe


class PairClassifier(nn.Module):
    """A linear layer on the mean tokens of two encoders."""

    def __init__(self, architectures: Mapping[str, Any], num_classes: int, bias: bool) -> None:
        super().__init__()
        encoders = {name: build_encoder(**each.stored) for name, each in architectures.items()}
        self.encoders = nn.ModuleDict(encoders)
        dim = sum(each.sizes.dim for each in architectures.values())
        self.head = nn.Linear(dim, num_classes, bias=bias)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.head(torch.cat([each(inputs[name]).mean(1) for name, each in self.encoders.items()], 1))


def model(run: Any, attach_to: Any) -> nn.Module:
    spec = run.spec
    return PairClassifier(spec.architectures, spec.dataset.num_classes, spec.recipe.model.bias)


class PairTask:
    collate = None

    @classmethod
    def from_recipe(cls, num_classes: int, recipe: Mapping[str, Any]) -> Self:
        return cls()

    def build_model(self) -> None: ...

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return functional.cross_entropy(self.predict(model, batch), batch[1]), {}

    def predict(self, model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0])

    def measure(self, model: nn.Module, batch: Any) -> Tensor:
        return (self.predict(model, batch).argmax(1) == batch[1]).cpu()

    def summarize(self, measured: Sequence[Tensor], dataset: Any) -> dict[str, float]:
        return {"top1": 100 * torch.cat(list(measured)).double().mean().item()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    from m2pt import build, session
    from m2pt.evaluation import MergedRun, evaluate_merged
    from m2pt.formats.weights import save_weights
    from m2pt.inputs import open_dataset
    from m2pt.plan.jobs import Jobs
    from m2pt.run_files import MERGED

    plan, seed = load_plan(arguments), arguments.seed
    run = plan.run(arguments.run, "paired")
    training, task = Jobs(plan).training(run, seed), build.target_task(run.spec)

    def set_up() -> session.Setup:
        dataset = open_dataset(plan, run.spec, "train", seed=seed, training=True)
        return session.Setup(build.run_model(run, lambda _: None, seed=seed), task.loss, dataset)

    def export(model: nn.Module, made: Mapping[str, Any]) -> Mapping[str, float] | None:
        metadata = session.weights_metadata(training.stored, seed)
        save_weights(training.directory / MERGED, model.state_dict(), metadata)
        dataset = open_dataset(plan, run.spec, "val", seed=seed, training=False)
        return evaluate_merged(MergedRun(plan, run, seed, task, model, model, dataset, 4), None, made)

    session.train(plan, training, set_up, export)
