"""Measure the time of a training step on this machine's device, with synthetic inputs."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.ops.step_costs import MEASURED, StepCost, measured_costs, save_measurements
from m2pt.ops.synthetic_training import build_synthetic
from m2pt.plan.jobs import Training
from m2pt.plan.plan import Plan
from m2pt.session import device_name, set_threads
from m2pt.training.averaging import MergedAverage
from m2pt.training.launch import checkpoint_activations, put_channels_last, resolve, round_to_tf32
from m2pt.training.optimizer import create_optimizer
from m2pt.training.settings import TrainingSettings

REPEATS = 3
"""Micro-batches and updates that are timed, after one warm-up of each."""


def measure_missing(plan: Plan, trainings: Mapping[str, Training]) -> None:
    """Measure and save the step costs that are unknown on this device; `trainings` by their `cost_key`."""
    set_threads(plan)
    name, device = device_name(plan), torch.device(resolve(device=plan.config.device)[0])
    known = measured_costs(plan.results)
    measured = {key for key, costs in known.items() if any(_is_measured(cost, name) for cost in costs)}
    new = [key for key in trainings if key not in measured]
    for number, key in enumerate(new, start=1):
        training = trainings[key]
        print(f"measuring on {name}, {number} of {len(new)}: {training.id}", file=sys.stderr, flush=True)
        try:
            synthetic = build_synthetic(training, device)
            seconds = step_seconds(
                synthetic.model, synthetic.loss, synthetic.batch, training.settings, plan.config.device
            )
        except torch.OutOfMemoryError:
            print(f"  not measured: does not fit into the memory of {name}", file=sys.stderr)
            continue
        entry = {
            "seconds": seconds,
            "training": training.id,
            "torch": torch.__version__,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        save_measurements(plan.results, {key: entry}, name)


def _is_measured(cost: StepCost, device: str) -> bool:
    return (cost.device, cost.basis) == (device, MEASURED)


def step_seconds(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], tuple[Tensor, Any]],
    batch: Any,
    settings: TrainingSettings,
    device: str,
) -> float:
    """Return the seconds of an optimizer step: median micro-batch times `accumulation`, plus median update.

    All `settings.repeat_step` updates are included, data loading is not. Model and batch must be on the
    device that `resolve` returns for `device`. Accelerate is not used: it allows one precision per process,
    and recipes of several are timed here.
    """
    stepper = Stepper(model, loss, settings, device)
    passes, updates = [], []
    for _ in range(1 + REPEATS):
        passes.append(_seconds(lambda: stepper.micro_batch(batch), stepper.device))
        updates.append(_seconds(stepper.update, stepper.device))
    return statistics.median(passes[1:]) * settings.accumulation + statistics.median(updates[1:])


class Stepper:
    """The steps of a recipe on a device, with its execution settings, without data, schedule or Accelerate.

    The model is changed in place, as a training does.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], tuple[Tensor, Mapping[str, Tensor]]],
        settings: TrainingSettings,
        device: str,
    ) -> None:
        kind, precision = resolve(settings.precision, device)
        self.device, self._reduced = torch.device(kind), precision != "no"
        self._dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        self._model, self._loss, self._settings = model, loss, settings
        round_to_tf32(settings.tf32)
        if settings.activation_checkpointing:
            checkpoint_activations(model)
        if settings.channels_last:
            put_channels_last(model)
        if settings.compile:
            model.compile()
        self._optimizer = create_optimizer(model, settings)
        self._trainable = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._average = None if settings.ema is None else MergedAverage(model, settings.ema)
        self._scaler = torch.amp.GradScaler(kind, enabled=precision == "fp16")

    def micro_batch(self, batch: Any) -> dict[str, Tensor]:
        """Add the gradients of one micro-batch; return its loss as `loss`, and what else is logged."""
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._reduced):
            value, others = self._loss(self._model, batch)
        self._scaler.scale(value / self._settings.accumulation).backward()
        return {name: scalar.detach() for name, scalar in {**others, "loss": value}.items()}

    def update(self) -> None:
        """Update the weights."""
        for _ in range(self._settings.repeat_step - 1):
            self._optimizer.step()
        if self._settings.clip_grad is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._trainable, self._settings.clip_grad)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        if self._average is not None:
            self._average.update()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    wait_for(device)
    began = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - began


def wait_for(device: torch.device) -> None:
    """Wait until a device has computed what it was given; a CPU always has."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)
