"""timm's optimizers and schedules, with separate parameter groups for the cross-modal scales."""

from collections.abc import Mapping
from typing import Any

import timm.optim
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from m2pt.errors import InputError
from m2pt.pathway import is_scale
from m2pt.training.settings import TrainingSettings

FUSED = ("adamw", "sgd")
"""Optimizers with a fused kernel: four times as fast for a hundred small tensors on a CPU."""


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Sort the trainable parameters of `model` into groups for the optimizer; frozen ones are left out.

    A group holds `params`, `weight_decay` and, under layer-wise decay, `lr_scale`: the factor
    layer_decay^(L + 1 - id) for a model of L blocks, where the tokenizer has id 0, block n (from 0) n + 1 and
    the head L + 1 (BEiT's rule, as in MAE). Vectors, and matrices that `model.no_weight_decay()` lists, do
    not decay unless `decay_vectors` is set. The cross-modal scales are in separate groups, with
    `scale_weight_decay`; given `scale_lr` they are in one group with that learning rate and without layer
    decay.

    Raises:
        InputError: nothing is trainable, or `layer_decay` is set and the model does not number its layers.
    """
    keep: set[str] = getattr(model, "no_weight_decay", set)()
    if settings.decay_vectors:
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [{"params": trainable, "weight_decay": settings.weight_decay}] if trainable else []
    elif settings.layer_decay == 1.0:
        groups = timm.optim.param_groups_weight_decay(model, settings.weight_decay, no_weight_decay_list=keep)
    elif hasattr(model, "group_matcher"):
        groups = timm.optim.param_groups_layer_decay(
            model, settings.weight_decay, no_weight_decay_list=keep, layer_decay=settings.layer_decay
        )
    else:
        raise InputError(
            f"layer_decay is {settings.layer_decay}, but {type(model).__name__} has no group_matcher() to "
            "number its layers: set layer_decay to 1.0"
        )
    if not groups:
        raise InputError(f"{type(model).__name__} has no trainable parameter")

    scales = {id(parameter) for name, parameter in model.named_parameters() if is_scale(name)}
    others = [_subset(group, scales, inside=False) for group in groups]
    own = [_subset(group, scales, inside=True) for group in groups]
    if settings.scale_lr is not None:
        own = [{"params": [p for group in own for p in group["params"]], "lr": settings.scale_lr}]
    for group in own:
        group["weight_decay"] = settings.scale_weight_decay
    return [group for group in (*others, *own) if group["params"]]


def _subset(group: Mapping[str, Any], members: set[int], *, inside: bool) -> dict[str, Any]:
    return {**group, "params": [p for p in group["params"] if (id(p) in members) == inside]}


def create_optimizer(model: nn.Module, settings: TrainingSettings) -> Optimizer:
    """Build timm's optimizer over `parameter_groups(model, settings)`.

    Raises:
        InputError: as `parameter_groups`, or the optimizer does not accept `optimizer_args`.
    """
    groups = parameter_groups(model, settings)
    arguments: dict[str, Any] = dict(settings.optimizer_args)
    if settings.betas is not None:
        arguments["betas"] = settings.betas
    if settings.optimizer in FUSED:
        arguments.setdefault("fused", True)
    if settings.optimizer == "lars":
        groups = _without_trust_scaling_of_vectors(groups)
    try:
        return timm.optim.create_optimizer_v2(
            groups, opt=settings.optimizer, lr=settings.peak_lr(), weight_decay=0.0, **arguments
        )
    except TypeError as error:
        given = {**settings.optimizer_args, **({} if settings.betas is None else {"betas": settings.betas})}
        raise InputError(f"optimizer {settings.optimizer} does not accept {given}: {error}") from error


def _without_trust_scaling_of_vectors(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Split each group so that LARS's `always_adapt` reaches matrices only, as in MAE's linear probing.

    A trust ratio of a scale that starts at 0, or of a bias, would tie its step to its own size.
    """
    vectors = {id(p) for group in groups for p in group["params"] if p.ndim <= 1}
    matrices = [_subset(group, vectors, inside=False) for group in groups]
    plain = [{**_subset(group, vectors, inside=True), "always_adapt": False} for group in groups]
    return [group for group in (*matrices, *plain) if group["params"]]


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load the optimizer state of a checkpoint.

    Raises:
        ValueError: the shapes are those of other parameters; torch compares only their number.
        Exception: whatever torch raises for something that is not an optimizer's state.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(
                    f"{name} of shape {tuple(value.shape)} for a parameter of {tuple(parameter.shape)}"
                )


def create_schedule(
    optimizer: Optimizer, settings: TrainingSettings, steps_per_epoch: int
) -> CosineLRScheduler | StepLRScheduler:
    """Return timm's schedule: `step_update(step)` before step `step` (from 0) sets every learning rate.

    Linear from 0 during the warmup w, then min_lr + (lr - min_lr)·(1 + cos π(step - w)/(total - w))/2, or
    with `step_decay` lr·rate^⌊(step - w)/decay steps⌋, each times a group's `lr_scale`. It is a function of
    the step alone, so a resume has nothing to restore.

    Raises:
        InputError: the warmup is as long as the training.
    """
    total, warmup = settings.length(steps_per_epoch), settings.warmup(steps_per_epoch)
    if warmup >= total:
        raise InputError(f"the warmup of {warmup} steps must be shorter than the training of {total} steps")
    if settings.step_decay is not None:
        return StepLRScheduler(
            optimizer,
            decay_t=settings.step_decay.epochs * steps_per_epoch,
            decay_rate=settings.step_decay.rate,
            warmup_t=warmup,
            warmup_prefix=True,
            t_in_epochs=False,
        )
    return CosineLRScheduler(
        optimizer,
        t_initial=total - warmup,
        lr_min=settings.min_lr,
        warmup_t=warmup,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def current_lr(optimizer: Optimizer) -> float:
    """Return the learning rate before layer decay, from the first group (never the scales' own)."""
    group = optimizer.param_groups[0]
    return group["lr"] / group.get("lr_scale", 1.0)
