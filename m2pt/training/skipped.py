"""The corrupt samples that a training has skipped: counted, logged once per file, and bounded."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from m2pt.atomic import write_text
from m2pt.datasets.corrupt import MOST_PERCENT, most_corrupt
from m2pt.errors import InputError, count
from m2pt.run_files import SKIPPED

Log = Callable[[str], None]


class SkippedSamples:
    """The corrupt samples that a training has skipped, in all of its processes.

    Args:
        samples: number of samples of the training split.
        directory: of the run, to list the messages there; None in every process but the main one.
    """

    def __init__(self, samples: int, directory: Path | None = None) -> None:
        self.samples, self.directory = samples, directory
        self.reasons: list[str] = []
        """Messages, each once, in the order in which they were first met; each names a file."""
        self.in_epoch = 0
        """Number of samples of this epoch that have been replaced, as far as that is shared."""
        self._own: list[str] = []

    def add(self, messages: Iterable[str]) -> None:
        """Add the messages of samples that this process has replaced.

        Raises:
            InputError: more samples than `corrupt_samples: skip` allows are corrupt.
        """
        self._own += messages
        if self._own:
            self._check({*self.reasons, *self._own})

    def share(self, log: Log) -> None:
        """Share what the processes have added; log and list what is new. All processes call this.

        Raises:
            InputError: as for `add`.
        """
        added = gather_object(self._own)
        self._own = []
        self.in_epoch += len(added)
        known = set(self.reasons)
        new = [message for message in dict.fromkeys(added) if message not in known]
        if not new:
            return
        self.reasons += new
        for message in new:
            log(f"skipping a corrupt sample: {message}")
        if self.directory is not None:
            write_text(self.directory / SKIPPED, "".join(f"{message}\n" for message in self.reasons))
        self._check(self.reasons)

    def end_epoch(self, epoch: int, log: Log) -> dict[str, float]:
        """Share, log the number of samples that were replaced in this epoch, and return it if not 0."""
        self.share(log)
        replaced, self.in_epoch = self.in_epoch, 0
        if not replaced:
            return {}
        log(f"epoch {epoch}: skipped {count(replaced, 'corrupt sample', 'corrupt samples')}")
        return {"skipped": replaced}

    def end(self, log: Log) -> dict[str, int]:
        """Share, log the number of corrupt files, and return it if not 0."""
        self.share(log)
        if not self.reasons:
            return {}
        log(f"skipped {count(len(self.reasons), 'corrupt file', 'corrupt files')}, listed in {SKIPPED}")
        return {"skipped": len(self.reasons)}

    def state(self) -> dict[str, Any]:
        """Return what has been shared, for a checkpoint; empty if no sample is corrupt."""
        return {"skipped": {"reasons": self.reasons, "in_epoch": self.in_epoch}} if self.reasons else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint with the entries of `state`."""
        if "skipped" in state:
            stored = state["skipped"]
            self.reasons, self.in_epoch = [str(each) for each in stored["reasons"]], int(stored["in_epoch"])

    def _check(self, reasons: Iterable[str]) -> None:
        found = list(reasons)
        if len(found) > most_corrupt(self.samples):
            raise InputError(
                f"{len(found)} of {self.samples:,} training samples are corrupt, more than the "
                f"{MOST_PERCENT} % that corrupt_samples: skip allows; restore or remove them. One of them: "
                f"{min(found)}"
            )
