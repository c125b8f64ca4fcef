"""How far training is: a bar on a terminal, lines in train.log, and a few lines where stderr is a file."""

import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from tqdm import tqdm

QUIET = 30.0
"""Seconds between lines on a stderr that is no terminal."""


class Progress:
    """Reports training to people, in the main process only; wall-clock values belong here and in no metrics
    file.

    Args:
        log: train.log, appended to.
        enabled: False in every process but the main one.
    """

    def __init__(self, log: Path, *, enabled: bool = True) -> None:
        self._log = log.open("a", encoding="utf-8", buffering=1) if enabled else None
        self._bar: tqdm | None = None
        self._last_line = 0.0

    def begin(self, *, start: int, total: int, samples_per_step: int) -> None:
        """Count from step `start` (steps done in an earlier process) to `total`."""
        self._first, self._total, self._samples = start, total, samples_per_step
        self._began = time.monotonic()
        if self._log and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=start, unit="step", dynamic_ncols=True)

    def say(self, text: str) -> None:
        """Put one line in the log and on stderr."""
        self._write(text)
        if self._log and self._bar:
            self._bar.write(text, file=sys.stderr)
        elif self._log:
            print(text, file=sys.stderr, flush=True)

    def advance(self) -> None:
        """One optimizer step is done."""
        if self._bar:
            self._bar.update()

    def report(self, step: int, epoch: int, loss: float, lr: float) -> None:
        """Show the state after `step` steps."""
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
        if self._log and not self._bar and elapsed - self._last_line >= QUIET:
            self._last_line = elapsed
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar and close the log."""
        if self._bar:
            self._bar.close()
        if self._log:
            self._log.close()

    def _write(self, text: str) -> None:
        if self._log:
            self._log.write(f"{datetime.now().isoformat(timespec='seconds')} {text}\n")
