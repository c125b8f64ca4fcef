"""Data loaders for training and evaluation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from m2pt.datasets.corrupt import take_skipped
from m2pt.errors import InputError
from m2pt.training.sampling import EvaluationBatches, TrainingBatches
from m2pt.training.signals import ignore_stop_signals

Collate = Callable[[list[Any]], Any]


class Loaded(NamedTuple):
    """A batch, or the error that prevents it, and why samples of it have been replaced."""

    batch: Any
    skipped: list[str]
    error: InputError | None = None

    def checked(self) -> Any:
        """Return the batch.

        Raises:
            InputError: it cannot be read.
        """
        if self.error is not None:
            raise self.error
        return self.batch


class _Batches(Dataset[Any]):
    """A dataset of which torch reads whole batches.

    An error is returned: if a loader process raised it, its message would be a traceback.
    """

    def __init__(self, dataset: Dataset[Any], collate: Collate | None) -> None:
        self._dataset, self._collate = dataset, collate or default_collate

    def __getitems__(self, keys: Sequence[Any]) -> Loaded:
        """Return the batch of these keys."""
        take_skipped()  # of what else has been read in this process
        try:
            samples = [self._dataset[key] for key in keys]
        except InputError as error:
            return Loaded(None, [], error)
        return Loaded(self._collate(samples), take_skipped())


def _as_read(loaded: Any) -> Any:
    return loaded


@contextmanager
def training_stream(
    dataset: Dataset[Any],
    batches: TrainingBatches,
    *,
    num_workers: int,
    collate: Collate | None = None,
) -> Iterator[Iterator[Loaded]]:
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
        _Batches(dataset, collate),
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=num_workers,
        collate_fn=_as_read,
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


class EvaluationLoader:
    """A loader whose iterations raise an InputError at the first item that cannot be read.

    Args:
        dataset: what is loaded.
        loader: loads it.
    """

    def __init__(self, dataset: Dataset[Any], loader: DataLoader[Any]) -> None:
        self.dataset, self._loader = dataset, loader

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches."""
        return (loaded.checked() for loaded in self._loader)


def evaluation_loader(
    dataset: Dataset[Any],
    batch_size: int,
    num_workers: int,
    collate: Collate | None = None,
    *,
    rank: int = 0,
    world: int = 1,
) -> EvaluationLoader:
    """Return a loader of process `rank`'s share of all items, each once, in order, as of epoch 0."""
    loader: DataLoader[Any] = DataLoader(
        _Batches(dataset, collate),
        batch_sampler=EvaluationBatches(len(dataset), batch_size, rank=rank, world=world),  # type: ignore[arg-type]
        num_workers=num_workers,
        collate_fn=_as_read,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_stop_signals,
    )
    return EvaluationLoader(dataset, loader)
