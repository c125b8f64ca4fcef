"""Every kind of training in two gloo processes: each gets the mean of the gradients of both."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_processes import together

from m2pt.ops.synthetic_training import build_synthetic
from m2pt.plan.jobs import Training, trainings
from m2pt.plan.plan import Plan
from m2pt.training.launch import launch, leave, seed_step

TINY = Path("tests/tiny/config.yaml")
CPU = torch.device("cpu")
PASSES = 2
"""torch reports a parameter that a pass left without gradient when the next one starts."""


@cache
def kinds() -> dict[str, Training]:
    """Return a training of the tiny config per encoder, and per dataset, mode, initialization and body.

    The detector's backbone is frozen there, but not in the paper: it is added unfrozen.
    """
    plan = Plan.load(TINY)
    found = {training.stage: training for training in trainings(plan, plan.runs.values())}
    unfrozen = {
        name: each.model_dump() | {"freeze_backbone": False} for name, each in plan.config.transfer.items()
    }
    plan = Plan.load(TINY, {"transfer": unfrozen})
    other = {training.stage: training for training in trainings(plan, plan.runs.values())}
    return found | {"coco, unfrozen": other["coco"]}


def gradients(training: Training, rank: int) -> dict[str, Tensor]:
    """Return the gradients after some passes over `rank`'s own batches and draws; the model is shared."""
    torch.manual_seed(0)
    model = build_synthetic(training, CPU).model
    wrapped = launch("no", "cpu").prepare(model)
    for number in range(PASSES):
        torch.manual_seed(1 + 2 * number + rank)
        synthetic = build_synthetic(training, CPU)
        seed_step(CPU, 0, number, rank)
        loss, _ = synthetic.loss(wrapped, synthetic.batch)
        loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def one_of_two(rank: int, folder: Path) -> None:
    for name, training in kinds().items():
        torch.save(gradients(training, rank), folder / f"{name}.{rank}.pt")
    leave()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gradients")
    done = subprocess.run([sys.executable, __file__, folder], capture_output=True, text=True)
    assert json.loads(done.stdout) == [0, 0], done.stderr + (folder / "log").read_text()
    return folder


@pytest.mark.parametrize("name", kinds())
def test_two_processes_have_the_mean_of_their_gradients(folder: Path, name: str) -> None:
    training = kinds()[name]
    alone = [gradients(training, rank) for rank in (0, 1)]
    largest = max(gradient.abs().max() for gradient in alone[0].values())
    apart = max((one - other).abs().max() for one, other in zip(*(a.values() for a in alone), strict=True))
    assert apart > 1e-2 * largest
    for rank in (0, 1):
        shared = torch.load(folder / f"{name}.{rank}.pt", weights_only=True)
        assert shared.keys() == alone[0].keys() == alone[1].keys()
        for parameter, gradient in shared.items():
            mean = (alone[0][parameter] + alone[1][parameter]) / 2
            torch.testing.assert_close(gradient, mean, rtol=1e-4, atol=1e-5 * largest, msg=parameter)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main_folder = Path(sys.argv[1])
    print(together(2, main_folder / "log", lambda rank: one_of_two(rank, main_folder)))
