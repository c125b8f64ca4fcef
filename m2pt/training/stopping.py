"""Agreement of all processes on the steps after which they save and stop."""

import time

import torch
from accelerate import Accelerator

EXCHANGE_EVERY = 8
"""Most steps between two exchanges; fewer where that many take longer than `EXCHANGE_SECONDS`."""

EXCHANGE_SECONDS = 5.0
"""Schedulers warn about 90 s before the end, and saving takes part of that."""


class StopAgreement:
    """Stops all processes after the same step, whichever of them received the signal, and so for saving.

    A single process stops after the step in which the signal came; several exchange their signals every few
    steps, since each exchange makes them wait for each other.

    Args:
        accelerator: of the training.
        step: steps done so far; the first exchange follows the next one.
    """

    def __init__(self, accelerator: Accelerator, step: int) -> None:
        self._accelerator = accelerator
        self._schedule_exchange(step, after=1)

    def reached(self, step: int, signaled: bool, due: bool = False) -> tuple[bool, bool]:
        """Return whether to stop and whether to save after `step`; all processes call this after each step.

        Args:
            step: steps done so far.
            signaled: whether this process has received a signal.
            due: whether it is time to save, by this process's clock.
        """
        if self._accelerator.num_processes == 1:
            return signaled, due
        if step < self._next_step:
            return False, False
        seconds_per_step = (time.monotonic() - self._last_time) / (step - self._last_step)
        wait = max(1, min(EXCHANGE_EVERY, int(EXCHANGE_SECONDS / seconds_per_step)))
        # The main process decides for all how long to wait and when to save: their clocks differ.
        decides = [float(wait), float(due)] if self._accelerator.is_main_process else [0.0, 0.0]
        tensor = torch.tensor([float(signaled), *decides], device=self._accelerator.device)
        signals, wait, save = self._accelerator.reduce(tensor, "sum").tolist()
        self._schedule_exchange(step, after=int(wait))
        return signals > 0, save > 0

    def _schedule_exchange(self, step: int, *, after: int) -> None:
        self._last_step, self._last_time, self._next_step = step, time.monotonic(), step + after
