"""Data loaders for training and evaluation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from m2pt.training.sampling import EvaluationBatches, TrainingBatches
from m2pt.training.signals import ignore_signals

Collate = Callable[[list[Any]], Any]


@contextmanager
def training_stream(
    dataset: Dataset[Any],
    batches: TrainingBatches,
    *,
    num_workers: int,
    collate: Collate | None = None,
) -> Iterator[Iterator[Any]]:
    """Yield an iterator over all of `batches`: workers start once and do not run dry between epochs.

    `num_workers` processes load; `collate` None stacks samples as torch does. Workers ignore the signals that
    ask training to stop, which Slurm and a terminal send to them too: the main process needs them to finish
    its step.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_signals,
    )
    stream = iter(loader)
    try:
        yield stream
    finally:
        # Deaf to SIGTERM, they would keep the interpreter from ending after an error: dismiss them here.
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
    """Load every item of `dataset` once, in order, as of epoch 0; process `rank` of `world` has its share."""
    return DataLoader(
        dataset,
        batch_sampler=EvaluationBatches(len(dataset), batch_size, rank=rank, world=world),  # type: ignore[arg-type]
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_signals,
    )
