"""Progress of a training: a bar on a terminal, lines in train.log, and occasional lines on stderr."""

import sys
import time
from collections.abc import Iterator, Sized
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

QUIET = 30.0
"""Seconds between lines on stderr if it is not a terminal."""


def announced(batches: Sized, what: str) -> Iterator[Any]:
    """Yield the batches of a loader, with a bar on a terminal, else a line on stderr each `QUIET` seconds."""
    total, last = len(batches), time.monotonic()
    bar = tqdm(total=total, unit="batch", desc=what, dynamic_ncols=True) if sys.stderr.isatty() else None
    with bar or nullcontext():
        for number, batch in enumerate(batches, start=1):  # type: ignore[arg-type, var-annotated]
            yield batch
            if bar:
                bar.update()
            elif time.monotonic() - last >= QUIET and number < total:
                last = time.monotonic()
                print(f"{what}: {number} of {total} batches", file=sys.stderr, flush=True)


class Progress:
    """Reports progress from the main process; wall-clock values belong here, not in the metrics.

    Args:
        log: train.log, appended to.
        enabled: False in every process but the main one.
    """

    def __init__(self, log: Path, *, enabled: bool = True) -> None:
        self._file = log.open("a", encoding="utf-8", buffering=1) if enabled else None
        self._bar: tqdm | None = None
        self._last_line = 0.0

    def begin(self, *, start: int, total: int, samples_per_step: int) -> None:
        """Start the clock at step `start` (done by earlier attempts) of `total`."""
        self._first, self._total, self._samples = start, total, samples_per_step
        self._began = time.monotonic()
        if self._file and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=start, unit="step", dynamic_ncols=True)

    def log(self, text: str) -> None:
        """Write one line to the log and to stderr."""
        self._write(text)
        if self._file and self._bar:
            self._bar.write(text, file=sys.stderr)
        elif self._file:
            print(text, file=sys.stderr, flush=True)

    def advance(self) -> None:
        """Advance the bar by one step."""
        if self._bar:
            self._bar.update()

    def report(self, step: int, epoch: int, loss: float, lr: float) -> None:
        """Show loss, learning rate, speed and remaining time after `step` steps."""
        elapsed = time.monotonic() - self._began
        rate = (step - self._first) / elapsed
        speed = f"{rate * self._samples:.0f}"
        if self._bar:
            self._bar.set_postfix(
                {"loss": f"{loss:.4g}", "lr": f"{lr:.2e}", "samples/s": speed}, refresh=False
            )
        left = timedelta(seconds=round((self._total - step) / rate))
        state = f"loss {loss:.4g}, lr {lr:.2e}, {speed} samples/s, {left} left"
        line = f"step {step}/{self._total}, epoch {epoch}: {state}"
        self._write(line)
        if self._file and not self._bar and elapsed - self._last_line >= QUIET:
            self._last_line = elapsed
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the bar and the log."""
        if self._bar:
            self._bar.close()
        if self._file:
            self._file.close()

    def _write(self, text: str) -> None:
        if self._file:
            self._file.write(f"{datetime.now().isoformat(timespec='seconds')} {text}\n")
