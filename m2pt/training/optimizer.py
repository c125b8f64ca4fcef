"""The optimizer and its schedule, from timm; the cross-modal scales are in groups of their own."""

from collections.abc import Mapping
from typing import Any

import timm.optim
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from m2pt.errors import InputError
from m2pt.pathway import is_scale
from m2pt.training.settings import TrainingSettings

FUSED = ("adamw", "sgd")
"""Those with a fused kernel: on a CPU, for a hundred small tensors, four times as fast as the others."""


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Sort the trainable parameters of `model` into groups for the optimizer; frozen ones are left out.

    A group holds `params`, `weight_decay` and, under layer-wise decay, `lr_scale`: the factor
    layer_decay^(L + 1 - id) for a model of L blocks, where the tokenizer has id 0, block n (from 0) n + 1 and
    the head L + 1 (BEiT's rule, as in MAE). Vectors, and matrices that `model.no_weight_decay()` lists, do
    not decay. The cross-modal scales are in groups of their own, with `scale_weight_decay`; given `scale_lr`
    they are in one group with that learning rate and without layer decay.

    Raises:
        InputError: nothing is trainable, or `layer_decay` is asked of a model that does not number its
            layers.
    """
    keep: set[str] = getattr(model, "no_weight_decay", set)()
    if settings.layer_decay == 1.0:
        groups = timm.optim.param_groups_weight_decay(model, settings.weight_decay, no_weight_decay_list=keep)
    elif hasattr(model, "group_matcher"):
        groups = timm.optim.param_groups_layer_decay(
            model, settings.weight_decay, no_weight_decay_list=keep, layer_decay=settings.layer_decay
        )
    else:
        raise InputError(
            f"layer_decay is {settings.layer_decay}, but {type(model).__name__} has no group_matcher() that "
            "numbers its layers: set layer_decay to 1.0"
        )
    if not groups:
        raise InputError(f"{type(model).__name__} has no trainable parameter: nothing to train")

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
        InputError: as `parameter_groups`, or `optimizer_args` holds what the optimizer does not know.
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
        raise InputError(f"optimizer {settings.optimizer} does not take {given}: {error}") from error


def _without_trust_scaling_of_vectors(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Split each group so that LARS's `always_adapt` reaches matrices only, as in MAE's linear probing.

    A trust ratio of a scale that starts at 0, or of a bias, would tie its step to its own size.
    """
    vectors = {id(p) for group in groups for p in group["params"] if p.ndim <= 1}
    matrices = [_subset(group, vectors, inside=False) for group in groups]
    plain = [{**_subset(group, vectors, inside=True), "always_adapt": False} for group in groups]
    return [group for group in (*matrices, *plain) if group["params"]]


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer the moments of a checkpoint.

    Raises:
        ValueError: they are of other parameters: torch compares their number, but not the shapes.
        Exception: whatever torch raises of a state that is none.
    """
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(
                    f"{name} of shape {tuple(value.shape)} for a parameter of {tuple(parameter.shape)}"
                )


def create_schedule(
    optimizer: Optimizer, settings: TrainingSettings, steps_per_epoch: int
) -> CosineLRScheduler:
    """timm's cosine, stepped per optimizer step: `step_update(step)` before step `step` (from 0) sets every
    lr.

    Linear from 0 during the warmup w, then min_lr + (lr - min_lr)·(1 + cos π(step - w)/(total - w))/2, both
    times a group's `lr_scale`. It is a function of the step alone, so a resume has nothing to restore.

    Raises:
        InputError: the warmup is as long as the training.
    """
    total, warmup = settings.length(steps_per_epoch), settings.warmup(steps_per_epoch)
    if warmup >= total:
        raise InputError(
            f"the warmup of {warmup} steps leaves nothing of a training of {total} steps: shorten it"
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
    """The learning rate before layer decay, from the first group (the scales' own is never first)."""
    group = optimizer.param_groups[0]
    return group["lr"] / group.get("lr_scale", 1.0)
