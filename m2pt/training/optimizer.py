"""timm's optimizers and schedules, with separate parameter groups for the cross-modal scales."""

from collections.abc import Mapping
from typing import Any

import timm.optim
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from m2pt.errors import InputError
from m2pt.pathway import is_scale
from m2pt.training.settings import TrainingSettings
from m2pt.training.sharding import is_sharded, sharded_state

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
"""Layers whose biases never decay on their own: `decay_biases` is for the others."""

FUSED = ("adamw", "sgd")
"""Optimizers with a fused kernel: four times as fast for a hundred small tensors on a CPU."""


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Sort the trainable parameters of `model` into groups for the optimizer; frozen ones are left out.

    A group holds `params`, `weight_decay` and, under layer-wise decay, `lr_scale`: the factor
    layer_decay^(L + 1 - id) for a model of L blocks, where the tokenizer has id 0, block n (from 0) n + 1 and
    the head L + 1 (BEiT's rule, as in MAE). Vectors, and matrices that `model.no_weight_decay()` lists, do
    not decay unless `decay_vectors` is set, or `decay_biases` for biases other than those of norms. The
    cross-modal scales are in separate groups, with `scale_weight_decay`; given `scale_lr` they are in one
    group with that learning rate and without layer decay.

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
    if settings.decay_biases:
        groups = _with_decayed_biases(groups, model, settings.weight_decay)

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


def _with_decayed_biases(
    groups: list[dict[str, Any]], model: nn.Module, weight_decay: float
) -> list[dict[str, Any]]:
    """Move the biases of layers other than norms from each group to one of their own that decays."""
    biases = {
        id(module.bias)
        for module in model.modules()
        if isinstance(getattr(module, "bias", None), nn.Parameter) and not isinstance(module, NORMS)
    }
    others = [_subset(group, biases, inside=False) for group in groups]
    decayed = [{**_subset(group, biases, inside=True), "weight_decay": weight_decay} for group in groups]
    return [group for group in (*others, *decayed) if group["params"]]


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
    """Load the optimizer state of a checkpoint; the moments of sharded parameters become shards.

    Raises:
        ValueError: the shapes are those of other parameters; torch compares only their number.
        Exception: whatever torch raises for something that is not an optimizer's state.
    """
    optimizer.load_state_dict(sharded_state(optimizer, state) if is_sharded(optimizer) else state)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(
                    f"{name} of shape {tuple(value.shape)} for a parameter of {tuple(parameter.shape)}"
                )


def create_schedule(optimizer: Optimizer, settings: TrainingSettings, steps_per_epoch: int) -> Scheduler:
    """Return timm's schedule: `step_update(step)` before step `step` (from 0) sets every learning rate.

    Linear from `warmup_lr` during the warmup w, then with x = (step - w)/(total - w)

    - min_lr + (lr - min_lr)·(1 + cos πx)/2,
    - `decay: linear`: min_lr + (lr - min_lr)·(1 - x),
    - `step_decay.epochs`: lr·rate^⌊(step - w)/decay steps⌋,
    - `step_decay.at`: lr·rate^(number of its entries up to step),

    each times a group's `lr_scale`; without `warmup_prefix` w is 0 in these. It is a function of the step
    alone, so a resume has nothing to restore.

    Raises:
        InputError: the warmup is as long as the training.
    """
    total, warmup = settings.length(steps_per_epoch), settings.warmup(steps_per_epoch)
    if warmup >= total:
        raise InputError(f"the warmup of {warmup} steps must be shorter than the training of {total} steps")
    start: dict[str, Any] = {
        "warmup_t": warmup,
        "warmup_lr_init": settings.warmup_lr,
        "warmup_prefix": settings.warmup_prefix,
        "t_in_epochs": False,
    }
    steps = settings.step_decay
    if steps is not None and steps.at is not None:
        start["warmup_prefix"] = False
        milestones = [step + 1 for step in steps.at]  # timm compares them with step + 1
        return MultiStepLRScheduler(optimizer, decay_t=milestones, decay_rate=steps.rate, **start)
    if steps is not None and steps.epochs is not None:
        every = steps.epochs * steps_per_epoch
        return StepLRScheduler(optimizer, decay_t=every, decay_rate=steps.rate, **start)
    length = total - warmup if settings.warmup_prefix else total
    if settings.decay == "linear":
        return PolyLRScheduler(optimizer, t_initial=length, power=1.0, lr_min=settings.min_lr, **start)
    return CosineLRScheduler(optimizer, t_initial=length, lr_min=settings.min_lr, **start)


def current_lr(optimizer: Optimizer) -> float:
    """Return the learning rate before layer decay, from the first group (never the scales' own)."""
    group = optimizer.param_groups[0]
    return group["lr"] / group.get("lr_scale", 1.0)
