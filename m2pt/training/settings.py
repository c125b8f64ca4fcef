"""All optimization settings; plain Python, so that reading a config does not import torch."""

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

EXECUTION = ("num_workers", "checkpoint_every", "checkpoint_minutes", "activation_checkpointing", "shard")
"""Settings that do not change the result, and so are not part of its identity."""

ADDED: Mapping[str, object] = {
    "step_decay": None,
    "decay_vectors": False,
    "decay_biases": False,
    "warmup_lr": 0.0,
    "warmup_prefix": True,
    "decay": "cosine",
    "tf32": False,
    "compile": False,
    "channels_last": False,
    "ema": None,
}
"""Settings that came later: files store them if they differ from this, so that earlier results stay valid."""


@dataclass(frozen=True, kw_only=True)
class StepDecay:
    """Piecewise constant learning rate, as torch's StepLR or MultiStepLR.

    Raises:
        ValueError: both or none of `epochs` and `at` are given, or `at` does not ascend.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    epochs: SmallCount | None = None
    """Epochs between two steps; or `at`."""
    at: tuple[Count, ...] | None = None
    """Optimizer steps, counted from the start of the training, where the rate falls; or `epochs`."""
    rate: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Factor of each step."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (not self.at):
            raise ValueError("step_decay: give exactly one of epochs and at")
        if self.at and list(self.at) != sorted(set(self.at)):
            raise ValueError(f"step_decay.at ({', '.join(map(str, self.at))}) must ascend")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of one training. Ranges are enforced where a config is read (pydantic honors them).

    One optimizer step consumes `batch_size × accumulation` samples, the effective batch, whatever the number
    of processes that share it (see `share`).

    Raises:
        ValueError: both or none of two alternatives are given, the warmup takes the whole training, or one
            setting excludes another.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    epochs: Annotated[int, Gt(0), Le(10**5)] | None = None
    """Passes over the training split (an incomplete effective batch is dropped); or `steps`."""
    steps: Count | None = None
    """Optimizer steps; or `epochs`."""
    batch_size: SmallCount
    """Samples per forward pass."""
    accumulation: SmallCount = 1
    """Forward passes per optimizer step, over all processes."""

    optimizer: Literal["adamw", "sgd", "lars", "lamb"] = "adamw"
    """Optimizer, by its name in timm."""
    optimizer_args: Mapping[str, bool | int | float] = field(default_factory=dict)
    """Further arguments of that optimizer, such as `momentum`, `eps` or `always_adapt` (lars)."""
    blr: Rate | None = None
    """Base learning rate: lr = blr * effective batch / 256; or `lr`."""
    lr: Rate | None = None
    """Peak learning rate, independent of the batch size; or `blr`."""
    betas: tuple[Beta, Beta] | None = None
    """Adam's decay rates; null uses the optimizer's default."""
    weight_decay: Decay = 0.0
    """Weight decay of matrices; vectors and what the model lists in `no_weight_decay()` do not decay."""
    decay_vectors: bool = False
    """Whether `weight_decay` acts on these too, as torch's optimizers have it by default."""
    decay_biases: bool = False
    """Whether it acts on biases, though not on those of norms, as in detectron2."""
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """Factor on the learning rate from each block to the one below it."""
    scale_lr: Rate | None = None
    """Peak learning rate of the cross-modal scales, independent of batch size and layer; null uses their
    layer's."""
    scale_weight_decay: Decay = 0.0
    """Weight decay of the cross-modal scales."""

    warmup_epochs: Annotated[float, Ge(0), Le(10**5)] | None = None
    """Linear warmup, in epochs; or `warmup_steps`; neither means no warmup."""
    warmup_steps: Annotated[int, Ge(0), Le(10**9)] | None = None
    """Linear warmup, in optimizer steps; or `warmup_epochs`."""
    warmup_lr: Decay = 0.0
    """Learning rate at the start of the warmup (times the layer's factor)."""
    warmup_prefix: bool = True
    """Whether `decay` starts where the warmup ends; if not, it is as far along then as without a warmup."""
    decay: Literal["cosine", "linear"] = "cosine"
    """Course of the learning rate to `min_lr`."""
    min_lr: Decay = 0.0
    """Learning rate at the end (times the layer's factor)."""
    step_decay: StepDecay | None = None
    """Steps of the learning rate in place of `decay`."""
    clip_grad: Annotated[float, Gt(0), Le(10**6)] | None = None
    """Maximum global norm of the gradient; null does not clip."""

    repeat_step: Annotated[int, Gt(0), Le(100)] = 1
    """Optimizer steps per gradient; those before the last use it unclipped. The official part segmentation of
    Point-MAE takes 2, apparently by mistake; keep 1 except to reproduce its numbers."""

    ema: Annotated[float, Gt(0), Lt(1)] | None = None
    """Decay of an exponential moving average of the merged weights W + λA, which is then the result: what is
    evaluated and exported. Of finetunings and transfers; null takes the last weights."""

    precision: Literal["no", "bf16", "fp16", "auto"] = "auto"
    """Automatic mixed precision; "auto" is bf16 (or fp16 without it) on a GPU, and none on a CPU."""
    tf32: bool = False
    """Whether a GPU rounds the factors of float32 products and convolutions to TF32."""
    compile: bool = False
    """Whether torch.compile compiles the model: equal up to rounding, faster on a GPU."""
    channels_last: bool = False
    """Whether 2-D convolutions have their channels last: equal up to rounding, and on some devices faster for
    models with many of them. Not together with shard."""
    activation_checkpointing: bool = False
    """Whether blocks are computed again in the backward pass in place of keeping their activations: less
    memory, about a third more time, the same result."""
    shard: bool = False
    """Whether several processes split weights, gradients and moments among them (FSDP2) in place of keeping
    all in each (DDP): less memory, more exchange, the same result up to rounding. One process has nothing to
    split. Not together with ema, compile, channels_last, fp16 or joint trainings."""
    num_workers: Annotated[int, Ge(0), Le(1024)] = 0
    """Loader processes per training process; the samples do not depend on it."""
    log_every: Count = 20
    """Optimizer steps between lines of metrics.jsonl."""
    checkpoint_every: Count = 500
    """Optimizer steps between resume checkpoints."""
    checkpoint_minutes: Annotated[float, Gt(0), Le(10**5)] | None = None
    """Most minutes between them, if steps take long; a step is always finished first."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        if (self.blr is None) == (self.lr is None):
            raise ValueError("give exactly one of blr and lr")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise ValueError("give at most one of warmup_epochs and warmup_steps")
        if self.step_decay is not None and (self.min_lr or self.decay != "cosine"):
            raise ValueError("min_lr and decay belong to a smooth decay: leave them out beside step_decay")
        if self.decay_vectors and self.decay_biases:
            raise ValueError("decay_vectors includes biases: leave decay_biases out")
        if self.warmup_lr > self.peak_lr():
            raise ValueError(f"warmup_lr ({self.warmup_lr:g}) must not exceed the peak of {self.peak_lr():g}")
        if self.decay_vectors and self.layer_decay != 1.0:
            raise ValueError("decay_vectors needs layer_decay 1.0")
        if self.repeat_step > 1 and self.precision not in ("no", "bf16"):
            raise ValueError("repeat_step above 1 needs precision no or bf16: fp16 may skip a step")
        whole = {name: getattr(self, name) for name in ("ema", "compile", "channels_last")}
        whole["precision: fp16"] = self.precision == "fp16"
        if self.shard and any(whole.values()):
            named = " and ".join(name for name, is_set in whole.items() if is_set)
            raise ValueError(f"shard: not together with {named}, which need weights whole; leave one out")
        for length, warmup, unit in (
            (self.epochs, self.warmup_epochs, "epochs"),
            (self.steps, self.warmup_steps, "steps"),
        ):
            if length is not None and warmup is not None and warmup >= length:
                raise ValueError(f"warmup_{unit} ({warmup}) must be less than {unit} ({length})")

    def effective_batch(self) -> int:
        """Return the samples per optimizer step."""
        return self.batch_size * self.accumulation

    def share(self, processes: int) -> tuple[int, int]:
        """Return the batch size and the accumulation of each of `processes` that share the effective batch.

        They share the forward passes first. If there are more processes than passes, or the numbers do not
        divide, each batch is split among the remaining factor of processes. Mixup and masks are then drawn
        for the smaller batches: of the same kind as in one process, but not the same. For batch statistics
        see `m2pt.training.batch_statistics`.

        Raises:
            InputError: the batches cannot be split evenly.
        """
        passes = math.gcd(self.accumulation, processes)
        split = processes // passes
        if self.batch_size % split:
            fewer = next(n for n in range(processes - 1, 0, -1) if self._can_share(n))
            raise InputError(
                f"{processes} processes cannot share the recipe's batch_size {self.batch_size} * "
                f"accumulation {self.accumulation} evenly: each batch of {self.batch_size} would be split "
                f"among {split}; start {fewer}, or change batch_size or accumulation"
            )
        return self.batch_size // split, self.accumulation // passes

    def _can_share(self, processes: int) -> bool:
        return self.batch_size % (processes // math.gcd(self.accumulation, processes)) == 0

    def peak_lr(self) -> float:
        """Return the learning rate at the end of the warmup: `lr`, or MAE's `blr` × effective batch / 256."""
        if self.lr is not None:
            return self.lr
        return (self.blr or 0.0) * self.effective_batch() / 256

    def length(self, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * steps_per_epoch

    def warmup(self, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps of warmup."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return round((self.warmup_epochs or 0.0) * steps_per_epoch)
