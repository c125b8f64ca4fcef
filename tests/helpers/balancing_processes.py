"""Two processes train each balancing method under DDP; `tests/agm/conftest.py` runs this file.

Usage: balancing_processes.py FOLDER. Each process writes FOLDER/RANK.pt: the state of each method.
"""

import sys
from pathlib import Path

import torch
from balancing_models import Early, Late, batch, validation
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from m2pt.agm import (
    MSES,
    MSLR,
    OGM,
    AdaptiveGradientModulation,
    BalancingMethod,
    GradientBlending,
    Joint,
    Muting,
)
from m2pt.agm.processes import mean_over_processes, sum_over_processes

PAIR = ("audio", "visual")
EPOCHS = 3
TRAINED = ("agm", "ogm", "mslr", "mses", "blending")


def new_method(name: str) -> BalancingMethod:
    """Return a method on a new model, without BatchNorm where two processes must equal one."""
    if name == "joint":
        return Joint(Late(*PAIR))
    if name == "agm":
        return AdaptiveGradientModulation(Late(*PAIR), alpha=0.7)
    if name == "ogm":
        return OGM(Late(*PAIR), alpha=0.7, enhance=True, parameters="all", seed=3)
    if name == "mslr":
        return MSLR(Late(*PAIR), coefficients={"audio": 1.5, "visual": 0.5}, memory=1)
    if name == "mses":
        return MSES(Early(*PAIR), patience=0)
    heads = {modality: nn.Linear(4, 3).double() for modality in PAIR}
    for head in heads.values():
        nn.init.constant_(head.weight, 0.1)
        nn.init.zeros_(head.bias)
    return GradientBlending(Late(*PAIR), heads=heads, super_epoch=1)


def train(method: BalancingMethod, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """Train on this process's share of each batch and return the state."""
    wrapped = DistributedDataParallel(method) if world > 1 else method
    optimizer = torch.optim.SGD(method.parameters(), lr=0.2, momentum=0.9, weight_decay=0.01)
    for epoch in range(1, EPOCHS + 1):
        for step in range(2):
            inputs, target = batch(*PAIR, size=8, seed=10 * epoch + step)
            share = slice(rank * 8 // world, (rank + 1) * 8 // world)
            optimizer.zero_grad()
            for part in (slice(0, 2), slice(2, None)) if step else (slice(None),):  # accumulate unequal parts
                own = {name: value[share][part] for name, value in inputs.items()}
                labels = target[share][part]
                (wrapped(own, labels) * len(labels) * world / 8).backward()
            method.before_step()
            optimizer.step()
        # What each process measured differs; the method must decide alike
        shift = 0.1 * (rank - (world - 1) / 2)
        method.after_epoch(
            epoch,
            validation(
                {"audio": 0.5 + 0.1 * epoch + shift, "visual": 0.6 - 0.1 * epoch - shift},
                {"audio": 1.0 + epoch + shift, "visual": 2.0 - 0.1 * epoch},
                {"audio": 1.0 / epoch + shift, "visual": 1.5 / epoch, "joint": 0.9 / epoch},
            ),
        )
    return {name: value for name, value in method.state_dict().items() if isinstance(value, torch.Tensor)}


def new_modulation() -> AdaptiveGradientModulation:
    """Return AGM on a new model of three modalities, with a frozen part, learned muting and a window."""
    torch.manual_seed(0)
    model = Late(*PAIR, "text")
    model.encoders["text"].weight.requires_grad_(False)
    muting = Muting.learned(batch(*model.modalities)[0])
    return AdaptiveGradientModulation(model, alpha=0.7, muting=muting, window=(1, 2))


def train_modulated(rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """Train AGM for three epochs of a step, the last after the window; return the state and each step's κ."""
    agm = new_modulation()
    wrapped = DistributedDataParallel(agm) if world > 1 else agm
    optimizer = torch.optim.SGD([p for p in agm.parameters() if p.requires_grad], lr=0.3)
    coefficients = []
    share = slice(rank * 8 // world, (rank + 1) * 8 // world)
    for epoch in range(1, EPOCHS + 1):
        inputs, target = batch(*agm.modalities, size=8, seed=epoch)
        optimizer.zero_grad()
        wrapped({name: value[share] for name, value in inputs.items()}, target[share]).backward()
        optimizer.step()
        coefficients.append(agm.modulation.coefficients.clone())
        agm.after_epoch(epoch)
    return {"coefficients": torch.stack(coefficients), **agm.state_dict()}


def work(rank: int, folder: str) -> None:
    """Train every method in one of two processes."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    states = {name: train(new_method(name), rank, 2) for name in TRAINED}
    own = torch.tensor([1.0, 10.0]) * (rank + 1)
    states["rank"] = {"sum": sum_over_processes(own), "mean": mean_over_processes(own), "own": own}
    states["modulated"] = train_modulated(rank, 2)
    torch.save(states, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    # Forked before the first backward pass, so that torch is imported once
    multiprocessing.start_processes(work, args=(sys.argv[1],), nprocs=2, start_method="fork")
