"""Composition of batches as a function of (seed, step), so that training can start at any step."""

from collections.abc import Iterator

import numpy as np

from m2pt.errors import InputError

Key = tuple[int, int]
"""(epoch, index) of a sample of a `SeededDataset`."""


class TrainingBatches:
    """Batches of keys for the optimizer steps `start` to `stop` - 1 of one process.

    A step has `accumulation` batches; `batch_size` and `accumulation` are this process's share
    (`TrainingSettings.share`). Each epoch is a fresh permutation, cut into effective batches of
    `batch_size × accumulation × world` items. The incomplete one at its end is dropped, so that all
    samples have equal weight. The effective batch of a step is the same set of samples however it is split
    among processes and passes: micro-batch m of process r is its slice (m·world + r).

    Raises:
        InputError: the split has fewer items than one effective batch.
    """

    def __init__(
        self,
        items: int,
        *,
        batch_size: int,
        accumulation: int = 1,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        stop: int = 0,
    ) -> None:
        effective = batch_size * accumulation * world
        if items < effective:
            raise InputError(
                f"the training split has {items} items, fewer than one effective batch of {effective}: lower "
                "batch_size or accumulation"
            )
        self.items, self.effective, self.seed = items, effective, seed
        self.batch_size, self.accumulation, self.rank, self.world = batch_size, accumulation, rank, world
        self.start, self.stop = start, stop
        self.steps_per_epoch = items // effective

    def __len__(self) -> int:
        """Return the number of batches (not of steps)."""
        return (self.stop - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the batches, step after step."""
        order, epoch = np.empty(0, np.int64), -1
        for step in range(self.start, self.stop):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = np.random.default_rng((self.seed, epoch)).permutation(self.items)
            first = step % self.steps_per_epoch * self.effective
            for micro in range(self.accumulation):
                begin = first + (micro * self.world + self.rank) * self.batch_size
                yield [(epoch, int(index)) for index in order[begin : begin + self.batch_size]]


class EvaluationBatches:
    """Batches of indices in order; process `rank` of `world` gets every world-th batch.

    Together the processes have exactly the batches of a single one, without padding or dropping, so that
    predictions do not depend on their number. Two processes' numbers of batches may differ by one.
    """

    def __init__(self, items: int, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        self.items, self.batch_size = items, batch_size
        self.starts = range(0, items, batch_size)[rank::world]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.starts)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches; the very last one may be incomplete."""
        for begin in self.starts:
            yield list(range(begin, min(begin + self.batch_size, self.items)))
