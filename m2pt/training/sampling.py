"""Which samples make which batch: a function of (seed, step), so that training may start at any step."""

from collections.abc import Iterator

import numpy as np

from m2pt.errors import InputError

Key = tuple[int, int]
"""(epoch, index): what a `SeededDataset` makes a sample from."""


class TrainingBatches:
    """Batches of keys for the optimizer steps `start` … `stop` - 1 of one process, `accumulation` batches a
    step.

    `batch_size` and `accumulation` are this process's share (`TrainingSettings.share`). Each epoch is a fresh
    permutation cut into effective batches of `batch_size × accumulation × world` items; what is left over at
    its end (other items in each epoch) is dropped, so that every step weighs its samples alike. A step's
    effective batch is the same set of samples for every split into processes and accumulation: micro-batch m
    of process r is its slice (m·world + r).

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
        """Number of batches (not of steps)."""
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
    """Batches of plain indices in order: process `rank` of `world` has every world-th batch.

    Together the processes have exactly the batches of a single one, nothing padded or dropped, so that what a
    model says of an item does not depend on their number; their numbers of batches may differ by one.
    """

    def __init__(self, items: int, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        self.items, self.batch_size = items, batch_size
        self.beginnings = range(0, items, batch_size)[rank::world]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.beginnings)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches; the last one of all may be short."""
        for begin in self.beginnings:
            yield list(range(begin, min(begin + self.batch_size, self.items)))
