"""The time of a training step on this machine's device, with synthetic inputs."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.training.launch import resolve
from m2pt.training.optimizer import create_optimizer
from m2pt.training.settings import TrainingSettings

REPEATED = 3
"""Micro-batches and updates that are timed, after one of each that is not."""


def step_seconds(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], tuple[Tensor, Any]],
    batch: Any,
    settings: TrainingSettings,
    device: str,
) -> float:
    """Seconds of an optimizer step: the median micro-batch times `accumulation`, and the median update.

    Loading data is not in it, since the batch is there; `settings.repeat_step` updates are. Model and batch
    must be on the device that `resolve` takes for `device`. Without Accelerate, which allows a process one
    precision: here recipes of several are timed.
    """
    kind, precision = resolve(settings.precision, device)
    on, reduced = torch.device(kind), precision != "no"
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    optimizer = create_optimizer(model, settings)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    scaler = torch.amp.GradScaler(kind, enabled=precision == "fp16")

    def micro_batch() -> None:
        with torch.autocast(kind, dtype=dtype, enabled=reduced):
            value, _ = loss(model, batch)
        scaler.scale(value / settings.accumulation).backward()

    def update() -> None:
        for _ in range(settings.repeat_step - 1):
            optimizer.step()
        if settings.clip_grad is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(trained, settings.clip_grad)
        scaler.step(optimizer)
        scaler.update()

    passes, updates = [], []
    for _ in range(1 + REPEATED):
        passes.append(_seconds(micro_batch, on))
        updates.append(_seconds(update, on))
        optimizer.zero_grad()
    return statistics.median(passes[1:]) * settings.accumulation + statistics.median(updates[1:])


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    _wait_for(device)
    began = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - began


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)
