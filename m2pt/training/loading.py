"""Data loaders for training and evaluation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from m2pt.training.sampling import EvaluationBatches, TrainingBatches
from m2pt.training.signals import ignore_stop_signals

Collate = Callable[[list[Any]], Any]


@contextmanager
def training_stream(
    dataset: Dataset[Any],
    batches: TrainingBatches,
    *,
    num_workers: int,
    collate: Collate | None = None,
) -> Iterator[Iterator[Any]]:
    """Yield an iterator over all of `batches`; workers start once and stay busy between epochs.

    Workers ignore stop signals, which Slurm and a terminal send to them too: the main process needs them to
    finish its step.

    Args:
        dataset: maps a key (epoch, index) to a sample.
        batches: keys of each batch.
        num_workers: processes that load; 0 loads in this one.
        collate: makes a batch of samples; None stacks them as torch does.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_stop_signals,
    )
    stream = iter(loader)
    try:
        yield stream
    finally:
        # Workers ignore SIGTERM and would keep the interpreter from exiting after an error.
        if num_workers:
            stream._shutdown_workers()  # type: ignore[attr-defined]


def evaluation_loader(
    dataset: Dataset[Any],
    batch_size: int,
    num_workers: int,
    collate: Collate | None = None,
    *,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Any]:
    """Return a loader of process `rank`'s share of all items, each once, in order, as of epoch 0."""
    return DataLoader(
        dataset,
        batch_sampler=EvaluationBatches(len(dataset), batch_size, rank=rank, world=world),  # type: ignore[arg-type]
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_stop_signals,
    )
