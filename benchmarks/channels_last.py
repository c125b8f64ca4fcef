"""Steps with `channels_last: true`, as ratios to steps without, of trainings that have convolutions.

    python benchmarks/channels_last.py [--config config/paper.yaml] [--tasks classification ...] [--batch 2]

Of each task and body the first training with more convolutions than its tokenizer's is taken, with random
weights and inputs of its true resolution. Both forms take turns, and the ratio is the median over the rounds;
on a CPU the time is processor time.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from m2pt import catalog
from m2pt.ops.measure import Stepper, wait_for
from m2pt.ops.rehearse import kinds_of_training
from m2pt.ops.synthetic_training import build_synthetic
from m2pt.plan.jobs import Training
from m2pt.plan.plan import Plan
from m2pt.training.launch import resolve


def chosen(plan: Plan, tasks: list[str]) -> Iterator[Training]:
    """Yield the first training of each task and body that has convolutions beside the tokenizer's."""
    seen = set()
    for training, *_ in kinds_of_training(plan):
        run = training.run
        if run is None or run.experiment.task not in tasks:
            continue
        key = (run.experiment.task, *{each.body for each in run.spec.architectures.values()})
        if key in seen:
            continue
        model = build_synthetic(training, torch.device("meta"), 2).model
        if sum(isinstance(each, nn.Conv2d) for each in model.modules()) > 1:
            seen.add(key)
            yield training


def seconds(stepper: Stepper, batch: Any) -> float:
    """Return the seconds of one step."""
    clock = time.process_time if stepper.device.type == "cpu" else time.perf_counter
    start = clock()
    stepper.micro_batch(batch)
    stepper.update()
    wait_for(stepper.device)
    return clock() - start


def main() -> None:
    """Print a line for each training."""
    parser = argparse.ArgumentParser(description="Steps with the channels last")
    parser.add_argument("--config", type=Path, default=Path("config/paper.yaml"))
    parser.add_argument("--tasks", nargs="+", choices=catalog.TASKS, default=list(catalog.TASKS))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    plan = Plan.load(arguments.config)
    device = torch.device(resolve(device=plan.config.device)[0])
    print(f"{'step':>9} {'channels last':>14} {'ratio':>6}  training, {arguments.batch} samples on {device}")
    for training in chosen(plan, arguments.tasks):
        print(f"building {training.id}", file=sys.stderr, flush=True)
        steppers, batch = [], None
        for last in (False, True):
            synthetic = build_synthetic(training, device, arguments.batch)
            settings = replace(training.settings, accumulation=1, channels_last=last)
            steppers.append(Stepper(synthetic.model, synthetic.loss, settings, plan.config.device))
            batch = synthetic.batch if batch is None else batch
        rounds = [[seconds(each, batch) for each in steppers] for _ in range(1 + arguments.rounds)][1:]
        plain, last = (statistics.median(times) for times in zip(*rounds, strict=True))
        ratio = statistics.median(b / a for a, b in rounds)
        print(f"{1e3 * plain:6.0f} ms {1e3 * last:11.0f} ms {ratio:6.3f}  {training.id}", flush=True)


if __name__ == "__main__":
    main()
