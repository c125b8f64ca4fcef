"""Every optimisation setting, named in one place; plain Python, so that reading a config imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from m2pt.errors import InputError

Count = Annotated[int, Gt(0), Le(10**9)]
SmallCount = Annotated[int, Gt(0), Le(10**6)]
Rate = Annotated[float, Gt(0), Le(1000)]
Decay = Annotated[float, Ge(0), Le(1000)]
Beta = Annotated[float, Ge(0), Lt(1)]

EXECUTION = ("num_workers", "checkpoint_every")
"""Settings that change no bit of what is trained, and so belong to no result's identity."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is trained. The ranges are enforced where a config is read (pydantic honours them).

    One optimizer step consumes `batch_size × accumulation` samples, the effective batch, whatever the number
    of processes that share it (see `share`).

    Raises:
        ValueError: two of a pair of alternatives are given, or neither; no training is left after the warmup.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    epochs: Annotated[int, Gt(0), Le(10**5)] | None = None
    """Length in passes over the training split (an incomplete effective batch is dropped); or `steps`."""
    steps: Count | None = None
    """Length in optimizer steps; or `epochs`."""
    batch_size: SmallCount
    """Samples per forward pass."""
    accumulation: SmallCount = 1
    """Forward passes per optimizer step, of all processes together."""

    optimizer: Literal["adamw", "sgd", "lars", "lamb"] = "adamw"
    """timm's name of the optimizer."""
    optimizer_args: Mapping[str, bool | int | float] = field(default_factory=dict)
    """Further arguments of that optimizer, such as `momentum`, `eps` or `always_adapt` (lars)."""
    blr: Rate | None = None
    """Base learning rate: lr = blr * effective batch / 256; or `lr`."""
    lr: Rate | None = None
    """Peak learning rate as it is, whatever the batch; or `blr`."""
    betas: tuple[Beta, Beta] | None = None
    """Adam's decay rates; null leaves the optimizer's own."""
    weight_decay: Decay = 0.0
    """Decay of matrices; vectors and what the model lists in `no_weight_decay()` are never decayed."""
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """Factor of the learning rate from each block to the one below it."""
    scale_lr: Rate | None = None
    """Peak learning rate of the cross-modal scales, whatever the batch and layer; null: their layer's."""
    scale_weight_decay: Decay = 0.0
    """Decay of the cross-modal scales."""

    warmup_epochs: Annotated[float, Ge(0), Le(10**5)] | None = None
    """Linear warmup from 0, in epochs; or `warmup_steps`; neither means no warmup."""
    warmup_steps: Annotated[int, Ge(0), Le(10**9)] | None = None
    """Linear warmup from 0, in optimizer steps; or `warmup_epochs`."""
    min_lr: Decay = 0.0
    """What the cosine ends at (times the layer's factor)."""
    clip_grad: Annotated[float, Gt(0), Le(10**6)] | None = None
    """Largest norm of the whole gradient; null does not clip."""

    repeat_step: Annotated[int, Gt(0), Le(100)] = 1
    """Optimizer steps with the same gradient; those before the last take it unclipped. The official part
    segmentation of Point-MAE does 2, which looks like a slip: off unless its numbers are to be met."""

    precision: Literal["no", "bf16", "fp16", "auto"] = "auto"
    """Automatic mixed precision; "auto" is bf16 or fp16 on a GPU, whichever it has, and none on a CPU."""
    num_workers: Annotated[int, Ge(0), Le(1024)] = 0
    """Processes that load samples, for each process that trains; the samples do not depend on it."""
    log_every: Count = 20
    """Optimizer steps between lines of metrics.jsonl."""
    checkpoint_every: Count = 500
    """Optimizer steps between resume checkpoints."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        if (self.blr is None) == (self.lr is None):
            raise ValueError("give exactly one of blr and lr")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise ValueError("give at most one of warmup_epochs and warmup_steps")
        if self.repeat_step > 1 and self.precision not in ("no", "bf16"):
            raise ValueError("repeat_step above 1 needs precision no or bf16: fp16 may have to skip a step")
        for length, warmup, unit in (
            (self.epochs, self.warmup_epochs, "epochs"),
            (self.steps, self.warmup_steps, "steps"),
        ):
            if length is not None and warmup is not None and warmup >= length:
                raise ValueError(f"warmup_{unit} ({warmup}) must be less than {unit} ({length})")

    def effective_batch(self) -> int:
        """Samples per optimizer step."""
        return self.batch_size * self.accumulation

    def share(self, processes: int) -> tuple[int, int]:
        """Return the batch size and the accumulation of each of `processes` that share the effective batch.

        They share the forward passes. Where these do not come out even, what is left of the number of
        processes divides each batch. Mixup and masks are then drawn for the smaller batches: of the same kind
        as in one process, but not the same. For batch statistics see `m2pt.training.batch_statistics`.

        Raises:
            InputError: neither comes out even.
        """
        passes = math.gcd(self.accumulation, processes)
        split = processes // passes
        if self.batch_size % split:
            fewer = next(n for n in range(processes - 1, 0, -1) if self._can_share(n))
            raise InputError(
                f"{processes} processes cannot share the recipe's batch_size {self.batch_size} * "
                f"accumulation {self.accumulation} evenly: each batch of {self.batch_size} would be divided "
                f"among {split}; start {fewer}, or change batch_size or accumulation"
            )
        return self.batch_size // split, self.accumulation // passes

    def _can_share(self, processes: int) -> bool:
        return self.batch_size % (processes // math.gcd(self.accumulation, processes)) == 0

    def peak_lr(self) -> float:
        """Learning rate at the end of the warmup: `lr`, or MAE's `blr` × effective batch / 256."""
        if self.lr is not None:
            return self.lr
        return (self.blr or 0.0) * self.effective_batch() / 256

    def length(self, steps_per_epoch: int) -> int:
        """Optimizer steps in all."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * steps_per_epoch

    def warmup(self, steps_per_epoch: int) -> int:
        """Optimizer steps of warmup."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return round((self.warmup_epochs or 0.0) * steps_per_epoch)
