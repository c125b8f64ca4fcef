"""Saving and restoring a training: the contents of resume.pt and final.pt."""

import operator
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from m2pt.errors import InputError
from m2pt.run_files import FINAL, RESUME
from m2pt.training import checkpoint
from m2pt.training.averaging import MergedAverage
from m2pt.training.method import Method
from m2pt.training.metrics import DivergedError, LossWindow, MetricsFile
from m2pt.training.optimizer import current_lr, load_optimizer
from m2pt.training.sharding import whole_state
from m2pt.training.skipped import SkippedSamples


class TrainingState:
    """Everything that changes from step to step.

    Learning rates, batches and random numbers are functions of the step, so they are not saved.

    Args:
        directory: of the run.
        identity: of the training.
        effective_batch: samples per step, which a resumed training must share.
        model: not wrapped.
        optimizer: of the model.
        scaler: of fp16 gradients; disabled in other precisions.
        window: losses since the last line of metrics.jsonl.
        skipped: corrupt samples; the files have no key for it if there are none.
        method: None if the training has none; then the files have no key for it.
        average: likewise.
        is_main: whether this process writes.
    """

    def __init__(
        self,
        directory: Path,
        identity: str,
        *,
        effective_batch: int,
        model: nn.Module,
        optimizer: Optimizer,
        scaler: torch.amp.GradScaler,
        window: LossWindow,
        skipped: SkippedSamples,
        method: Method | None,
        average: MergedAverage | None,
        is_main: bool,
    ) -> None:
        self.directory, self.identity, self.effective_batch = directory, identity, effective_batch
        self.model, self.optimizer, self.scaler, self.window = model, optimizer, scaler, window
        self.skipped, self.method, self.average, self.is_main = skipped, method, average, is_main
        self.step = self.saved_step = 0
        self._earlier_seconds, self._started = 0.0, time.monotonic()

    def restore_final(self) -> bool:
        """Restore weights and step of final.pt, if the training is complete; return whether it is.

        Raises:
            InputError: the file cannot be read, or does not fit.
        """
        state = checkpoint.load_final(self.directory, self.identity)
        if state is None:
            return False
        path = self.directory / FINAL
        self._check_method(path, state)
        with checkpoint.restoring(path):
            checkpoint.load_model(self.model, state["model"])
            self._load_method(state)
            self._load_average(state)
            self.step = operator.index(state["step"])
        return True

    def resume(self, total: int) -> int:
        """Restore resume.pt, if there is one, and start the clock.

        Args:
            total: steps of the whole training.

        Returns:
            The length of metrics.jsonl at that time, in bytes.

        Raises:
            InputError: the file cannot be read, or does not fit.
        """
        length = 0
        state = checkpoint.load_resume(self.directory, self.identity, self.effective_batch)
        if state is not None:
            path = self.directory / RESUME
            self._check_method(path, state)
            with checkpoint.restoring(path):
                checkpoint.load_model(self.model, state["model"])
                load_optimizer(self.optimizer, state["optimizer"])
                self.scaler.load_state_dict(state["scaler"])
                self.window.restore(state["window"])
                self.skipped.restore(state)
                self._load_method(state)
                self._load_average(state)
                step, length = operator.index(state["step"]), operator.index(state["metrics_length"])
                self._earlier_seconds = float(state["seconds"])
                if not (0 < step < total and length >= 0):
                    raise ValueError(f"step {step} of {total}, {length} bytes of metrics")
            self.step = self.saved_step = step
        self._started = time.monotonic()
        return length

    def save(self, metrics: MetricsFile) -> None:
        """Write resume.pt; all processes call this.

        Raises:
            DivergedError: a loss or a weight is not finite, so that nothing may be saved.
            InputError: the disk is full.
        """
        window = self.window.state()
        self._check_weights()
        optimizer = whole_state(self.optimizer, keep=self.is_main)
        if self.is_main:
            state = {
                "identity": self.identity,
                "step": self.step,
                "effective_batch": self.effective_batch,
                "model": self.model.state_dict(),
                "optimizer": optimizer,
                "scaler": self.scaler.state_dict(),
                "window": window,
                **self.skipped.state(),
                **metrics.state(),
                "seconds": self.seconds(),
            }
            checkpoint.save(self.directory / RESUME, state | self._optional_entries())
        self.saved_step = self.step

    def save_final(self, metrics: MetricsFile) -> None:
        """Write final.pt; all processes call this.

        Raises:
            DivergedError: a weight is not finite.
            InputError: the disk is full.
        """
        self._check_weights()
        if self.is_main:
            state = {"identity": self.identity, "step": self.step, "model": self.model.state_dict()}
            checkpoint.save(self.directory / FINAL, state | metrics.state() | self._optional_entries())

    def seconds(self) -> float:
        """Return the wall time that led to this state, over all attempts."""
        return self._earlier_seconds + time.monotonic() - self._started

    def _check_weights(self) -> None:
        """Raise if a weight is not finite: an infinite gradient spoils weights before any loss shows it."""
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not all(torch.isfinite(parameter).all() for parameter in trainable):
            raise DivergedError("a weight is not finite", self.step, current_lr(self.optimizer))

    def _optional_entries(self) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        if self.method is not None:
            entries["method"] = {"name": type(self.method).__qualname__, "state": self.method.state_dict()}
        if self.average is not None:
            entries["average"] = self.average.state_dict()
        return entries

    def _check_method(self, path: Path, state: dict[str, Any]) -> None:
        """Reject a state of another method.

        Settings of a method are part of the identity, so that a changed one is superseded before this. Under
        the same identity another method is a mistake of the calling code: moving the state away would hide
        it, and resuming would mix two trainings.
        """
        with checkpoint.restoring(path):
            stored = state["method"]["name"] if "method" in state else None
        own = None if self.method is None else type(self.method).__qualname__
        if stored != own:
            raise InputError(
                f"{path} was saved by a training with {_method_name(stored)}, but this one has "
                f"{_method_name(own)}: train with the same method, give another method another identity, or "
                "delete the file to train from the start"
            )

    def _load_method(self, state: dict[str, Any]) -> None:
        if self.method is not None:
            self.method.load_state_dict(state["method"]["state"])

    def _load_average(self, state: dict[str, Any]) -> None:
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        elif "average" in state:
            raise ValueError("it has an average of the weights (ema), which this training does not keep")


def _method_name(name: str | None) -> str:
    return "no method" if name is None else f"the method {name}"
