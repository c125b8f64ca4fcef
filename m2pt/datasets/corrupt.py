"""Corrupt samples of a training split: `corrupt_samples: skip` trains without them, up to a bound."""

from collections.abc import Sequence

from m2pt.errors import InputError

MOST_PERCENT = 1
"""Most percent of a training split that may be corrupt, but always one sample."""

MOST_IN_A_ROW = 100
"""Most corrupt samples in a row."""


class DatasetError(InputError):
    """An error of the dataset or its settings that shows in a sample: such a sample is never skipped."""


def most_corrupt(samples: int) -> int:
    """Return how many of the samples of a training split may be corrupt."""
    return max(1, samples * MOST_PERCENT // 100)


# ---- in training -------------------------------------------------------------------------------------------

_skipped: list[str] = []


def note_skipped(error: InputError) -> None:
    """Note for `take_skipped` that this process has replaced a sample because of this error."""
    _skipped.append(str(error))


def take_skipped() -> list[str]:
    """Return and forget why samples have been replaced in this process: a message for each, with its file."""
    taken = _skipped.copy()
    _skipped.clear()
    return taken


# ---- in a check --------------------------------------------------------------------------------------------


class CorruptSample(str):
    """A check's problem of one sample of the training split; `read` is how many of the split were read."""

    read: int

    def __new__(cls, problem: str, read: int) -> "CorruptSample":
        """Return `problem` with the number of samples that were read."""
        sample = super().__new__(cls, problem)
        sample.read = read
        return sample


def separate(problems: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the problems that a dataset is refused for, and the corrupt samples that may be skipped.

    Beyond the bound on corrupt samples it is refused for these too.
    """
    corrupt = [problem for problem in problems if isinstance(problem, CorruptSample)]
    others = [problem for problem in problems if not isinstance(problem, CorruptSample)]
    if not corrupt or len(corrupt) <= most_corrupt(read := max(problem.read for problem in corrupt)):
        return others, [*corrupt]
    beyond = (
        f"{len(corrupt)} of the {read} training samples that were read are corrupt, more than the "
        f"{MOST_PERCENT} % that corrupt_samples: skip allows."
    )
    return [*others, beyond, *corrupt], []
