"""Estimate the cost of each training: its steps, the cost of a step, the size of its files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from m2pt import catalog
from m2pt.errors import InputError, listed
from m2pt.ops.dataset_sizes import Items, training_items
from m2pt.ops.step_costs import FlopEstimator, StepCost, best, cost_key, finished_costs, measured_costs
from m2pt.ops.storage import Footprint, footprint
from m2pt.ops.synthetic_training import body_bytes, build_synthetic, operations
from m2pt.plan.claims import runs_of_result
from m2pt.plan.jobs import Training, jobs
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.run_files import SUMMARY


@dataclass(frozen=True)
class Estimate:
    """The estimate for a training; `steps` and `cost` are None if they are unknown."""

    training: Training
    steps: int | None
    items: Items | None
    cost: StepCost | None
    footprint: Footprint
    done: bool

    @property
    def hours(self) -> float | None:
        """Hours on one device; None if steps or their cost are unknown."""
        return None if self.steps is None or self.cost is None else self.steps * self.cost.seconds / 3600


class _Work(NamedTuple):
    """Cost and footprint that all trainings with one `cost_key` share."""

    cost: StepCost | None
    footprint: Footprint


def runs_of_results(plan: Plan, names: Iterable[str]) -> list[Run]:
    """Return the runs that these tables, figures or the summary need, each once.

    Raises:
        InputError: the config has no such result.
    """
    known = [*plan.tables, *plan.figures, *([SUMMARY] if plan.config.claims else [])]
    for name in names:
        if name not in known:
            raise plan.no_result(name)
    found = (runs_of_result(plan, name) for name in names)
    return list(dict(item for runs in found for item in runs.items()).values())


def estimate(
    plan: Plan,
    trainings: Sequence[Training],
    sizes: Mapping[str, int],
    estimator: FlopEstimator,
    *,
    timed: bool = True,
    device: str | None = None,
) -> list[Estimate]:
    """Estimate each training.

    Args:
        plan: the plan; times of finished trainings and measurements are read from its results folder.
        trainings: the trainings.
        sizes: sizes of training splits that replace those found, by dataset or dataset/subset.
        estimator: used for trainings without a known time.
        timed: whether to use known times.
        device: use times of this device only.

    Raises:
        InputError: `sizes` names a dataset that no training uses, a split is smaller than an effective batch,
            a file with times is damaged, or what an entry of the catalog names fails.
    """
    used = {training.spec.dataset.key for training in trainings}
    for name in sizes:
        if name not in used:
            raise InputError(
                f"--items {name}: no training uses this dataset; they use {', '.join(sorted(used))}."
            )
    work = _work(plan, trainings, estimator, timed=timed, device=device)
    splits: dict[str, Items | None] = {}
    estimates = []
    for training in trainings:
        # Sizes in bytes or clips become numbers of windows or views, which depend on the model's input.
        key = f"{training.spec.dataset.key} {training.spec.reader_input()}"
        if key not in splits:
            splits[key] = training_items(plan, training.spec, sizes)
        items, shared = splits[key], work[cost_key(training.stored)]
        steps = _steps(training, items)
        estimates.append(Estimate(training, steps, items, shared.cost, shared.footprint, training.is_done))
    return estimates


def one_of_each_kind(trainings: Sequence[Training]) -> dict[str, Training]:
    """Return the first training of each `cost_key`."""
    return {cost_key(training.stored): training for training in reversed(trainings)}


def imported_bytes(plan: Plan, runs: Iterable[Run]) -> dict[str, int]:
    """Return the bytes of the encoders that these runs import rather than train, by name, of all seeds."""
    imported: dict[str, int] = {}
    for job in jobs(plan, runs):
        if job.encoder is not None and job.training is None:
            size = body_bytes(plan.encoders[job.encoder].architecture)
            imported[job.encoder] = imported.get(job.encoder, 0) + size
    return imported


def _work(
    plan: Plan, trainings: Sequence[Training], estimator: FlopEstimator, *, timed: bool, device: str | None
) -> dict[str, _Work]:
    """Return step cost and footprint of each kind of training, by `cost_key`.

    Raises:
        InputError: a device is given of which no times are known.
    """
    known: dict[str, list[StepCost]] = {}
    for source in (finished_costs, measured_costs) if timed else ():
        for key, costs in source(plan.results).items():
            known.setdefault(key, []).extend(costs)
    devices = sorted({cost.device for costs in known.values() for cost in costs})
    if timed and device is not None and device not in devices:
        raise InputError(
            f"--device {device!r}: there are no times of this device below {plan.results}; "
            f"{f'known: {listed(devices)}' if devices else 'none of any device: use --measure there'}."
        )
    work = {}
    for key, training in one_of_each_kind(trainings).items():
        with catalog.naming(f"training {training.id}"):
            synthetic = build_synthetic(training, torch.device("meta"))
            copies = len(training.files) if training.run is None else 1
            settings = training.settings
            averaged = settings.ema is not None
            left = footprint(synthetic.model, synthetic.saved, settings.optimizer, copies, averaged=averaged)
            cost = best(known.get(key, ()), device)
            if cost is None:  # counting merges the pathways of the model, so the footprint comes first
                cost = estimator.cost(training, partial(operations, synthetic))
        work[key] = _Work(cost, left)
    return work


def _steps(training: Training, items: Items | None) -> int | None:
    """Return the optimizer steps of a training; None if it counts epochs of a split of unknown size."""
    settings = training.settings
    if settings.steps is not None:
        return settings.steps
    if items is None:
        return None
    effective = settings.batch_size * settings.accumulation
    if items.count < effective:
        raise InputError(
            f"{training.id}: {items.count} items ({items.origin}) are fewer than one effective batch of "
            f"{effective}: lower batch_size or accumulation in its recipe."
        )
    return settings.length(items.count // effective)
