"""What each training takes: its steps, what a step costs, what it leaves on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from m2pt.errors import InputError
from m2pt.planning.costs import StepCost, cost_key
from m2pt.planning.items import Items, dataset_key, training_items
from m2pt.planning.jobs import Training
from m2pt.planning.schedule import Job
from m2pt.planning.storage import Footprint
from m2pt.schema.plan import Plan


@dataclass(frozen=True)
class Estimate:
    """A training with what is known of it: `steps` or `cost` are None where they are not."""

    training: Training
    steps: int | None
    items: Items | None
    cost: StepCost | None
    footprint: Footprint
    done: bool

    @property
    def hours(self) -> float | None:
        """Hours of one device; None if steps or their cost are unknown."""
        return None if self.steps is None or self.cost is None else self.steps * self.cost.seconds / 3600


@dataclass(frozen=True)
class Work:
    """What trainings of one `cost_key` have in common."""

    cost: StepCost | None
    footprint: Footprint


def estimate(
    plan: Plan, trainings: Sequence[Training], work: Mapping[str, Work], given: Mapping[str, int]
) -> list[Estimate]:
    """Put together what is known of each training; `work` is by `cost_key`, `given` are sizes of splits.

    Raises:
        InputError: `given` names a dataset that no training has, or a split is smaller than a batch.
    """
    sizes: dict[str, Items | None] = {}
    found = []
    for training in trainings:
        # A size in bytes or images is one of windows or views only for this input.
        key = f"{dataset_key(training.spec)} {training.spec['architecture']['input']}"
        if key not in sizes:
            sizes[key] = training_items(plan, training.spec, given)
        items, shared = sizes[key], work[cost_key(training.spec)]
        steps = _steps(training, items)
        found.append(Estimate(training, steps, items, shared.cost, shared.footprint, training.is_done))
    known = {dataset_key(training.spec) for training in trainings}
    for name in given:
        if name not in known:
            raise InputError(
                f"--items {name}: no training has this dataset; they have {', '.join(sorted(known))}."
            )
    return found


def as_jobs(estimates: Sequence[Estimate], processes: int) -> list[Job]:
    """The trainings as jobs that `processes` devices share evenly; those of unknown hours take none."""
    ids = {each.training.id for each in estimates}
    return [
        Job(
            each.training.id,
            (each.hours or 0.0) / processes,
            tuple(need for need in each.training.needs if need in ids),
        )
        for each in estimates
    ]


def _steps(training: Training, items: Items | None) -> int | None:
    """Optimizer steps of a training: a number of epochs is one of steps once the split's size is known."""
    settings = training.settings
    if settings.steps is not None:
        return settings.steps
    if items is None:
        return None
    effective = settings.batch_size * settings.accumulation
    if items.count < effective:
        raise InputError(
            f"{training.id}: {items.count} items ({items.origin}) are fewer than one effective batch of "
            f"{effective}."
        )
    return settings.length(items.count // effective)
