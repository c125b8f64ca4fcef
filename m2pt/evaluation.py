"""Evaluate the merged model of a run, and check that its predictions equal those of the unmerged one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from m2pt import catalog, job_log
from m2pt.atomic import write_json
from m2pt.errors import RunError, count, listed
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.run_files import EVALUATION
from m2pt.session import is_main_process, training_record

if TYPE_CHECKING:
    from torch import nn

    from m2pt.tasks.target import TargetTask

ROUNDING = 1e-4
"""Largest relative difference that float32 rounding explains: none with the same kernels."""


@dataclass(frozen=True)
class MergedRun:
    """A finished run and its two models, for `compare` and `evaluate_merged`.

    Args:
        plan: plan of the run.
        run: what was trained.
        seed: seed of the run.
        task: its metrics.
        merged: the plain model.
        attached: the same model with its pathways, on the same device.
        dataset: its validation split.
        batch_size: samples per batch.
    """

    plan: Plan
    run: Run
    seed: int
    task: "TargetTask"
    merged: "nn.Module"
    attached: "nn.Module"
    dataset: Any
    batch_size: int

    def batches(self, rank: int = 0, world: int = 1) -> Iterable[Any]:
        """Return the loader of the validation batches that process `rank` of `world` evaluates."""
        from m2pt.training.loading import evaluation_loader

        workers = self.run.spec.recipe.training.num_workers
        return evaluation_loader(
            self.dataset, self.batch_size, workers, self.task.collate, rank=rank, world=world
        )


def log_start(subject: MergedRun, device: str) -> None:
    """Print what the log of an evaluation begins with, in the first process."""
    run, dataset = subject.run, subject.run.spec.dataset
    merged, attached = (
        sum(parameter.numel() for parameter in model.parameters())
        for model in (subject.merged, subject.attached)
    )
    classes = count(dataset.num_classes, "class", "classes")
    rows = {
        "dataset": f"{dataset.key}: {len(subject.dataset):,} validation items, {classes}",
        "parameters": f"{merged:,}, before merging {attached:,}",
        "device": device,
        "batch": subject.batch_size,
        "results": subject.plan.run_directory(run.name, subject.seed),
    }
    if is_main_process():
        job_log.begin(f"evaluate {run.name}, seed {subject.seed}", rows)


def compare(subject: MergedRun, batches: int) -> float | None:
    """Return how far the merged model's predictions are from the unmerged one's, relative to the largest.

    Only the first process compares, on the first `batches` of the validation split: the same ones for any
    number of processes. The others return None.

    Raises:
        RunError: they differ beyond float32 rounding.
    """
    from m2pt.tasks.target import largest_difference

    if not is_main_process():
        return None
    device = next(subject.merged.parameters()).device
    difference = largest_difference(
        subject.task, subject.merged, subject.attached, islice(subject.batches(), batches), device
    )
    check_difference(difference, str(subject.plan.run_directory(subject.run.name, subject.seed)))
    return difference


def evaluate_merged(
    subject: MergedRun, merged_difference: float | None, provenance: Mapping[str, Any]
) -> dict[str, float] | None:
    """Evaluate the merged model in all processes; the first writes evaluation.json.

    Args:
        subject: the run and its models.
        merged_difference: the result of `compare`.
        provenance: provenance of this evaluation.

    Returns:
        The metrics in percent; None in all processes but the first.

    Raises:
        InputError: there is nothing to evaluate.
        RunError: the task returns a metric that its entry of the catalog does not list.
    """
    from m2pt.pathway import scales
    from m2pt.tasks.evaluation import evaluate
    from m2pt.training.launch import leave, rank_and_world
    from m2pt.training.progress import announced

    device = next(subject.merged.parameters()).device
    rank, world = rank_and_world()
    announce = partial(announced, what=f"evaluating {subject.run.name}") if rank == 0 else iter
    metrics = evaluate(subject.task, subject.merged, subject.batches(rank, world), device, announce)
    leave()
    if metrics is None:
        return None
    write_evaluation(
        subject.plan,
        subject.run,
        subject.seed,
        metrics,
        provenance,
        scales=scales(subject.attached),
        merged_difference=merged_difference,
    )
    return metrics


def write_evaluation(
    plan: Plan,
    run: Run,
    seed: int,
    metrics: Mapping[str, float],
    provenance: Mapping[str, Any],
    **others: Any,
) -> None:
    """Write the evaluation.json of a run, with its spec and how it came about.

    Args:
        plan: plan of the run.
        run: what was trained.
        seed: seed of the run.
        metrics: in percent.
        provenance: provenance of this evaluation.
        others: further values that a kind of run stores, such as `scales`.

    Raises:
        RunError: a metric is not one of the task's entry of the catalog.
    """
    directory = plan.run_directory(run.name, seed)
    check_metrics(run.experiment.task, metrics)
    result = {
        "metrics": metrics,
        **others,
        "seed": seed,
        "spec": plan.stored_spec(run, seed),
        "training": training_record(directory),
        "provenance": provenance,
    }
    write_json(directory / EVALUATION, result)


def check_metrics(task: str, metrics: Mapping[str, float]) -> None:
    """Check that the metrics of an evaluation are among those of the task's entry in the catalog.

    Raises:
        RunError: they are not, so that no table could show them.
    """
    known = catalog.task(task).metrics
    if unknown := [name for name in metrics if name not in known]:
        raise RunError(
            f"task {task} returned {listed(unknown)}; the metrics of its entry are {listed(known)}"
        )


def check_difference(difference: float, what: str) -> None:
    """Make sure that merging did not change the predictions.

    Raises:
        RunError: they differ beyond float32 rounding, or the difference is not a number.
    """
    if not difference <= ROUNDING:
        raise RunError(
            f"{what}: merging changed the predictions by {difference:.2g} of the largest, "
            f"more than float32 rounding ({ROUNDING})"
        )
